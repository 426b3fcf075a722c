package voip

import "net/netip"

// handler gets each packet that a port receives. It is n bytes behind the room
// at the beginning of buf, with 4 bytes behind them, and stays until the loop's
// round ends. To is the address that it was sent to, if the port has several.
type handler func(on *loop, buf []byte, n int, from netip.AddrPort, to netip.Addr)

// packetSize is the largest packet that is relayed.
const packetSize = 2048
