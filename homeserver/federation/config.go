package federation

import (
	"errors"
	"fmt"
	"time"
)

// Config is the part of the section "federation" of the configuration file that
// bounds what other servers may make this one do.
type Config struct {
	// MaxRequests is how many requests of one server are worked on at a time.
	// Further ones are told to come again.
	MaxRequests int `yaml:"max_requests"`

	// RequestsPerSecond is how many requests one server may make in a second on
	// average. Ten times as many may come at once after a rest.
	RequestsPerSecond int `yaml:"requests_per_second"`

	// RequestMemory is how much memory the large bodies of requests that are
	// under way may take together. Bodies of up to 1M always have room.
	RequestMemory int64 `yaml:"request_memory" unit:"bytes"`

	// MaxTransactions is how many transactions of one server are worked on at
	// a time. Its others wait.
	MaxTransactions int `yaml:"max_transactions"`

	// MaxWaiting is how many more transactions of one server may wait. Further
	// ones are told to come again.
	MaxWaiting int `yaml:"max_waiting"`

	// TransactionTime is how long the work on one transaction may take.
	TransactionTime time.Duration `yaml:"transaction_time"`

	// MaxInbox is how many events of other servers may wait for earlier ones that
	// cannot be had just now. Where more would, the oldest are dropped.
	MaxInbox int `yaml:"max_inbox"`

	// MaxInboxPerServer is how many of them one server may have sent.
	MaxInboxPerServer int `yaml:"max_inbox_per_server"`

	// MaxInboxPerRoom is how many of them may be of one room.
	MaxInboxPerRoom int `yaml:"max_inbox_per_room"`

	// InboxAge is how long they may wait.
	InboxAge time.Duration `yaml:"inbox_age"`

	// MaxMissing is how many events of a gap in a room's timeline are fetched.
	// What is older is fetched when somebody reads it.
	MaxMissing int `yaml:"max_missing"`

	// MaxBackfill is how many events of a room's history one question to another
	// server asks for, and one answer to another server has.
	MaxBackfill int `yaml:"max_backfill"`

	// MaxSingle is how many events that others refer to are asked for one by one.
	// Where more of a room's state are missing, the whole state is fetched.
	MaxSingle int `yaml:"max_single_events"`

	// MaxState is how many events the state of a room, with what authorizes it,
	// may have when the room is joined, or fetched to bridge a gap.
	MaxState int `yaml:"max_state_events"`

	// GapMemory is how large the answers may be that are fetched to bridge one
	// gap.
	GapMemory int64 `yaml:"gap_memory" unit:"bytes"`

	// MaxEntries is how many rooms, users, devices or events one ephemeral message
	// or one question for keys may name.
	MaxEntries int `yaml:"max_entries"`

	// MaxJoinComplexity is how complex a room on other servers may be that a
	// user joins who is no administrator. A room's complexity is its number of
	// members and other events of state, divided by 500. The servers of the room
	// are asked for it; where they do not tell, the state is counted as it comes,
	// and the room left again. 0 sets no limit.
	MaxJoinComplexity float64 `yaml:"max_join_complexity"`

	// InvitesPerServer is how many users of this server one other server may
	// invite in an hour.
	InvitesPerServer int `yaml:"invites_per_server"`

	// InvitesPerUser is how often one user of this server may be invited by
	// others in an hour.
	InvitesPerUser int `yaml:"invites_per_user"`
}

// MostBackfill is the largest number of events that a question for history may ask
// for.
const MostBackfill = 1000

// DefaultConfig is for servers of every size.
func DefaultConfig() Config {
	return Config{
		MaxRequests: 100, RequestsPerSecond: 200, RequestMemory: 256 << 20,
		MaxTransactions: 4, MaxWaiting: 32, TransactionTime: 2 * time.Minute,
		MaxInbox: 10_000, MaxInboxPerServer: 500, MaxInboxPerRoom: 1000, InboxAge: 7 * 24 * time.Hour,
		MaxMissing: 200, MaxBackfill: 100, MaxSingle: 100, MaxState: 500_000, GapMemory: 256 << 20, MaxEntries: 10_000,
		InvitesPerServer: 1000, InvitesPerUser: 100,
	}
}

// Check returns everything that is wrong, not only the first thing.
func (c Config) Check() error {
	var errs []error
	for key, n := range map[string]int{
		"max_requests": c.MaxRequests, "requests_per_second": c.RequestsPerSecond, "max_entries": c.MaxEntries,
		"max_transactions": c.MaxTransactions, "max_waiting": c.MaxWaiting, "max_missing": c.MaxMissing, "max_state_events": c.MaxState,
		"max_backfill": c.MaxBackfill, "max_single_events": c.MaxSingle,
		"max_inbox": c.MaxInbox, "max_inbox_per_server": c.MaxInboxPerServer, "max_inbox_per_room": c.MaxInboxPerRoom,
		"invites_per_server": c.InvitesPerServer, "invites_per_user": c.InvitesPerUser,
	} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("federation.%s: must be at least 1", key))
		}
	}
	for key, n := range map[string]int64{"request_memory": c.RequestMemory, "gap_memory": c.GapMemory} {
		if n < 16<<20 {
			errs = append(errs, fmt.Errorf("federation.%s: must be at least 16M, the size of one large request", key))
		}
	}
	if c.MaxBackfill > MostBackfill {
		errs = append(errs, fmt.Errorf("federation.max_backfill: must be at most %d", MostBackfill))
	}
	if c.MaxJoinComplexity < 0 {
		errs = append(errs, errors.New("federation.max_join_complexity: must not be negative; 0 sets no limit"))
	}
	if c.InboxAge < time.Minute {
		errs = append(errs, errors.New("federation.inbox_age: must be at least 1m"))
	}
	if c.TransactionTime < time.Second {
		errs = append(errs, errors.New("federation.transaction_time: must be at least 1s"))
	}
	return errors.Join(errs...)
}
