package fedclient

import (
	"math/rand/v2"
	"net"
	"slices"
	"strings"
)

// orderRecords is the order in which the targets of SRV records are tried: by
// priority, and within one priority by chance, in proportion to the weights
// (RFC 2782).
func orderRecords(records []*net.SRV) []Target {
	list := slices.Clone(records)
	slices.SortStableFunc(list, func(a, b *net.SRV) int {
		if a.Priority != b.Priority {
			return int(a.Priority) - int(b.Priority)
		}
		return int(a.Weight) - int(b.Weight) // those of no weight first
	})
	var targets []Target
	for len(list) > 0 {
		same := slices.IndexFunc(list, func(r *net.SRV) bool { return r.Priority != list[0].Priority })
		if same < 0 {
			same = len(list)
		}
		sum := 0
		for _, r := range list[:same] {
			sum += int(r.Weight)
		}
		pick := pickRecord(list[:same], rand.IntN(sum+1))
		host := strings.TrimSuffix(list[pick].Target, ".")
		if host != "" && list[pick].Port != 0 && len(targets) < maxTargets {
			targets = append(targets, Target{host, list[pick].Port})
		}
		list = slices.Delete(list, pick, pick+1)
	}
	return targets
}

// pickRecord is the first record at which the running sum of the weights
// reaches n.
func pickRecord(list []*net.SRV, n int) int {
	sum := 0
	for i, r := range list {
		if sum += int(r.Weight); sum >= n {
			return i
		}
	}
	return len(list) - 1
}
