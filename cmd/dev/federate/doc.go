// Package federate holds the test that lets Switchboard federate with the
// homeservers that exist: Dendrite and Synapse run beside it on loopback, and
// users on both sides do what people do in rooms of each version that both have.
// It runs where SWITCHBOARD_TEST_PEERS names the servers to federate with, as in
// "dendrite,synapse"; "make federation" sets it. There is nothing in it but the
// test.
package federate
