package main

import (
	"fmt"
	"io"
)

// configCommands are about the configuration.
type configCommands struct {
	Print configPrint `cmd:"" help:"Show the configuration in force, with where each value comes from. Secrets are not shown."`
	Check configCheck `cmd:"" help:"Tell everything that is wrong with the configuration."`
}

type configPrint struct {
	Sample bool `help:"Show a sample that documents every key instead."`
}

// Run prints the configuration.
func (c *configPrint) Run(t *terminal) error {
	if c.Sample {
		_, err := io.WriteString(t.out, sample)
		return err
	}
	conf, err := t.load()
	if err != nil {
		return err
	}
	conf.warn(t)
	return printConfig(t.out, conf)
}

type configCheck struct{}

// Run checks the configuration.
func (configCheck) Run(t *terminal) error {
	conf, err := t.load()
	if err != nil {
		return err
	}
	conf.warn(t)
	from := "the defaults"
	if conf.file != "" {
		from = conf.file
	}
	fmt.Fprintf(t.out, "%s: no mistakes\n", from)
	return nil
}

// warn tells what may be a mistake.
func (c *loaded) warn(t *terminal) {
	for _, w := range c.warnings {
		fmt.Fprintln(t.err, "switchboard: warning:", w)
	}
}
