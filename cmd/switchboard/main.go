// Command switchboard is a Matrix homeserver with what belongs to one: bridges,
// appservices, calls. It reads the configuration, opens the listeners, wires
// the parts and stops them; what they do is up to their packages.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the command line.
type cli struct {
	Config string `help:"Configuration file. Without it, ${configFile} in this folder, if there is one." type:"path" env:"SWITCHBOARD_CONFIG" short:"c"`

	Serve   serveCommand     `cmd:"" help:"Run the server. With no configuration it serves this computer alone, from the folder data."`
	User    userCommands     `cmd:"" help:"Make, list and change accounts."`
	Token   tokenCommands    `cmd:"" help:"Make, list and revoke registration tokens."`
	Report  reportCommands   `cmd:"" help:"Show what users have reported as inappropriate."`
	Notice  noticeCommands   `cmd:"" help:"Tell users something, in a room that each has with the server."`
	Media   mediaCommands    `cmd:"" help:"List, delete, quarantine and move files."`
	Bridge  bridgeCommands   `cmd:"" help:"Run one bridge as a program of its own, for any homeserver."`
	Jitsi   jitsiCommands    `cmd:"" help:"Check the Jitsi server, and put group calls into rooms."`
	Calls   callTestCommands `cmd:"" name:"calltest" help:"Make links to the page on which calls are tested."`
	Doctor  doctorCommands   `cmd:"" help:"Find out what does not work, and what to do."`
	Conf    configCommands   `cmd:"" name:"config" help:"Show and check the configuration."`
	Version versionCommand   `cmd:"" help:"Tell the version and the licence of this program."`
}

// terminal is where a command runs.
type terminal struct {
	ctx         context.Context
	in          io.Reader
	out, err    io.Writer
	environment []string
	config      string // the file named on the command line, or ""
	program     string // as it was called, for hints; "" for its name
}

// called is how the operator calls this program for this server.
func (t *terminal) called() string {
	name := cmp.Or(t.program, "switchboard")
	if t.config != "" {
		name += " --config " + t.config
	}
	return name
}

// load reads the configuration.
func (t *terminal) load() (*loaded, error) { return loadConfig(t.config, t.environment) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(&terminal{ctx: ctx, in: os.Stdin, out: os.Stdout, err: os.Stderr, environment: os.Environ(), program: os.Args[0]}, os.Args[1:]))
}

// run runs one command and gives the status of the process: 0, 1 if it failed,
// 2 if it was called wrongly.
func run(t *terminal, args []string) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("switchboard"),
		kong.Description("A Matrix homeserver with bridges and calls in one program."),
		kong.Vars{"configFile": configFile},
		kong.UsageOnError(),
		kong.Writers(t.out, t.err),
		kong.Exit(func(code int) { exited = code }),
	)
	if err != nil {
		fmt.Fprintln(t.err, "switchboard:", err)
		return 2
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(t.err, "switchboard: %v (switchboard --help tells more)\n", err)
		return 2
	}
	t.config = c.Config
	if err := parsed.Run(t); err != nil {
		fmt.Fprintln(t.err, "switchboard:", describeError(err))
		return 1
	}
	return 0
}

// describeError is err as people read it: each of several in a line of its own.
func describeError(err error) string {
	list := flatten(err)
	if len(list) == 1 {
		return list[0].Error()
	}
	text := fmt.Sprintf("%d mistakes:", len(list))
	for _, e := range list {
		text += "\n  " + e.Error()
	}
	return text
}

// flatten lists the errors that were joined in err; none for nil.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range many.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}
