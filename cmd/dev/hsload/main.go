// Command hsload puts the same client-server load on any Matrix homeserver and
// prints one JSON object of what it measured, so that two servers can be
// compared in one run on one machine.
//
//	hsload -url http://127.0.0.1:8008 -secret SHARED_SECRET [-pid PID] [-users 50] ...
//
// Accounts are made through the shared-secret registration endpoint
// (/_synapse/admin/v1/register), which Synapse, Dendrite and Switchboard offer.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"switchboard/cmd/dev/load"
)

func main() {
	opts := load.Options{Progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	flag.StringVar(&opts.URL, "url", "http://127.0.0.1:8008", "client API base `URL`")
	flag.StringVar(&opts.Secret, "secret", "", "registration shared `secret`")
	flag.IntVar(&opts.PID, "pid", 0, "server process whose memory and CPU time are read")
	flag.IntVar(&opts.Users, "users", 50, "accounts")
	flag.IntVar(&opts.Rooms, "rooms", 50, "rooms, one per sender")
	flag.IntVar(&opts.Sends, "sends", 4000, "messages in the largest send phase")
	flag.IntVar(&opts.Parallel, "parallel", 32, "concurrent senders")
	flag.IntVar(&opts.Members, "members", 300, "members of the big room")
	flag.StringVar(&opts.Prefix, "prefix", fmt.Sprintf("l%d", time.Now().Unix()), "localpart prefix")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	report, err := load.Run(ctx, opts)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hsload:", err)
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, "hsload:", err)
		os.Exit(1)
	}
}
