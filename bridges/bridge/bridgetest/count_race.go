//go:build race

package bridgetest

const (
	raced     = true
	lossCount = 200
)
