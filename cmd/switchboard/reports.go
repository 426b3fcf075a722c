package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"switchboard/homeserver"
)

// reportCommands are about what users have reported.
type reportCommands struct {
	List reportList `cmd:"" help:"List what users have reported as inappropriate, the newest first."`
}

type reportList struct {
	Limit int `help:"How many to list at most." default:"50"`
}

// Run lists the reports.
func (c *reportList) Run(t *terminal) error { return t.carryOut("report list", c) }

func (c *reportList) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	list, err := s.Store.Reports(ctx, c.Limit)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHEN\tBY\tWHOM\tROOM\tEVENT\tREASON")
	for _, r := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", time.UnixMilli(r.TS).UTC().Format(time.DateTime), r.Reporter, r.User, r.Room, r.Event, strconv.Quote(r.Reason))
	}
	return w.Flush()
}
