//go:build !race

package bridgetest

// raced says that the race detector is on, under which everything takes more
// memory and ten times as long.
const raced = false

// lossCount is how many messages go each way while the connection is cut.
const lossCount = 1000
