// Command install installs a homeserver that Switchboard is tested with, unless
// that has been done, and prints the directory that has it: for Dendrite that of
// its programs, for Synapse that of a Python environment.
//
//	go run ./cmd/dev/peers/install dendrite|synapse
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/peers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	dir, err := install(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "install:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}

func install(ctx context.Context, args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("usage: install dendrite|synapse")
	}
	root, err := checkout.Root()
	if err != nil {
		return "", err
	}
	switch args[0] {
	case "dendrite":
		d, err := peers.InstallDendrite(ctx, root)
		return string(d), err
	case "synapse":
		s, err := peers.InstallSynapse(ctx, root)
		return string(s), err
	}
	return "", fmt.Errorf("there is no %q to install: there are dendrite and synapse", args[0])
}
