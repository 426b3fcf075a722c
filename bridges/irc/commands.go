package irc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"

	"switchboard/bridges/bridge"
)

// commands are what the bot understands besides what every bridge does.
func (c *Connector) commands() []commands.CommandHandler {
	help := func(args, text string) commands.HelpMeta {
		return commands.HelpMeta{Section: commands.HelpSectionChats, Description: text, Args: args}
	}
	return []commands.CommandHandler{
		&commands.FullHandler{Name: "join", Func: c.join, Help: help("[_network_] <_#channel_> [_key_]", "Enter a channel")},
		&commands.FullHandler{Name: "part", Aliases: []string{"leave"}, Func: c.part, Help: help("[_network_] [_#channel_]", "Leave a channel, or that of this room")},
		&commands.FullHandler{Name: "nick", Func: c.nick, RequiresLogin: true, Help: help("[_network_] <_nick_>", "Change your nick")},
		&commands.FullHandler{Name: "networks", Func: c.listNetworks, Help: help("", "List the networks and where you are")},
	}
}

// pick finds the network that a command is for: the one named by the first
// argument, that of the room, that of the only login, or the only one there is.
func (c *Connector) pick(ce *commands.Event) (n *network, own *session, args []string) {
	args = ce.Args
	if len(args) > 0 {
		if n = c.network(strings.ToLower(args[0])); n != nil {
			args = args[1:]
		}
	}
	if n == nil && ce.Portal != nil {
		id, _ := splitID(string(ce.Portal.ID))
		n = c.network(id)
	}
	var mine []*session
	for _, ul := range ce.User.GetUserLogins() {
		if s, ok := ul.Client.(*session); ok && (n == nil || s.network == n) {
			mine = append(mine, s)
		}
	}
	if n == nil && len(mine) > 0 {
		n = mine[0].network
		for _, s := range mine {
			if s.network != n {
				return nil, nil, args // several: the user must say which
			}
		}
	}
	if n == nil && len(c.networks) == 1 {
		n = c.networks[0]
	}
	if len(mine) > 0 {
		own = mine[0]
	}
	return n, own, args
}

func (c *Connector) names() string {
	var ids []string
	for _, n := range c.networks {
		ids = append(ids, n.ID)
	}
	return strings.Join(ids, ", ")
}

// join enters a channel, by the user's login or else by the relay's.
func (c *Connector) join(ce *commands.Event) {
	n, s, args := c.pick(ce)
	if n == nil {
		ce.Reply("Which network? Say `$cmdprefix join <network> <#channel>` with one of: " + c.names())
		return
	}
	if len(args) == 0 || len(args) > 2 {
		ce.Reply("Usage: `$cmdprefix join [network] <#channel> [key]`")
		return
	}
	relayed := s == nil
	if relayed {
		n.mu.Lock()
		s = n.sessions[n.relayID()]
		n.mu.Unlock()
		if s == nil || !s.relay() {
			ce.Reply("You are not logged in to %s. Use `login` first.", n.Name)
			return
		}
	}
	key := ""
	if len(args) == 2 {
		key = args[1]
		ce.Redact() // the key is a secret
	}
	portal, err := c.enter(ce.Ctx, s, args[0], key)
	if err == nil {
		err = c.bring(ce.Ctx, ce.User, portal, s, relayed)
	}
	if err != nil {
		ce.Reply("%s could not be joined: %v", args[0], err)
		return
	}
	ce.Reply("You are in [%s](%s).", portal.Name, portal.MXID.URI().MatrixToURL())
}

// roomTimeout is how long it may take to make the room of a channel, which
// takes a while where hundreds of users are.
const roomTimeout = 2 * time.Minute

// enter joins a channel and makes its room.
func (c *Connector) enter(ctx context.Context, s *session, name, key string) (*bridgev2.Portal, error) {
	ch, err := s.join(ctx, name, key)
	if err != nil {
		return nil, err
	}
	portal, err := c.br.GetPortalByKey(ctx, s.network.channelKey(ch.Name))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	if !bridge.Deliver(ctx, s.login, s.synced(ch.Name, true)) || !bridge.Exists(ctx, s.login, portal.PortalKey) {
		return nil, errors.New("the room could not be made; see the log of the bridge")
	}
	return portal, nil
}

// bring makes sure that the user is in the room. With the relay as the only way
// to write, the room uses it.
func (c *Connector) bring(ctx context.Context, user *bridgev2.User, portal *bridgev2.Portal, s *session, relayed bool) error {
	if relayed && portal.Relay == nil {
		if err := portal.SetRelay(ctx, s.login); err != nil {
			return fmt.Errorf("set the relay: %w", err)
		}
	}
	if err := c.br.Bot.EnsureInvited(ctx, portal.MXID, user.MXID); err != nil {
		return fmt.Errorf("invite you: %w", err)
	}
	if puppet := user.DoublePuppet(ctx); puppet != nil {
		if err := puppet.EnsureJoined(ctx, portal.MXID); err != nil {
			return fmt.Errorf("bring you into the room: %w", err)
		}
	}
	return nil
}

// part leaves a channel.
func (c *Connector) part(ce *commands.Event) {
	n, s, args := c.pick(ce)
	if n == nil || s == nil {
		ce.Reply("You are not logged in there.")
		return
	}
	channel := ""
	switch {
	case len(args) > 0:
		channel = args[0]
	case ce.Portal != nil:
		channel = s.target(ce.Portal)
	}
	if _, in := s.client.Channel(channel); !in {
		ce.Reply("You are not in a channel of that name. Usage: `$cmdprefix part [network] [#channel]`")
		return
	}
	if err := s.leave(ce.Ctx, channel, strings.Join(args[min(1, len(args)):], " ")); err != nil {
		ce.Reply("%s could not be left: %v", channel, err)
		return
	}
	if ce.User.DoublePuppet(ce.Ctx) != nil && bridge.Exists(ce.Ctx, s.login, n.channelKey(channel)) {
		s.change(channel, s.user(s.client.Nick()), time.Now(), s.going(s.client.Nick(), ""))
	}
	ce.Reply("You have left %s.", channel)
}

// nick changes the user's nick.
func (c *Connector) nick(ce *commands.Event) {
	n, s, args := c.pick(ce)
	if n == nil || s == nil || len(args) != 1 {
		ce.Reply("Usage: `$cmdprefix nick [network] <nick>`, with one of your networks: " + c.names())
		return
	}
	isup := s.client.ISupport()
	err := checkNick(args[0], isup.NickLen())
	if err == nil {
		ctx, cancel := context.WithTimeout(ce.Ctx, askTimeout)
		defer cancel()
		err = s.client.SetNick(ctx, args[0])
	}
	if err != nil {
		ce.Reply("%s: %v", args[0], err)
		return
	}
	s.update(func(meta *LoginMetadata) bool { meta.Nick = args[0]; return true })
	ce.Reply("You are %s on %s now.", args[0], n.Name)
}

// listNetworks tells the networks and the user's state there.
func (c *Connector) listNetworks(ce *commands.Event) {
	var b strings.Builder
	for _, n := range c.networks {
		fmt.Fprintf(&b, "* `%s` %s (%s)", n.ID, n.Name, n.Address)
		for _, ul := range ce.User.GetUserLogins() {
			s, ok := ul.Client.(*session)
			if !ok || s.network != n {
				continue
			}
			var channels []string
			for _, w := range s.client.Wanted() {
				channels = append(channels, w.Name)
			}
			state := "not connected"
			if s.client.Online() {
				state = "connected"
			}
			fmt.Fprintf(&b, ": you are %s, %s, in %s", s.client.Nick(), state, strings.Join(append(channels, "")[:max(1, len(channels))], ", "))
		}
		b.WriteString("\n")
	}
	ce.ReplyAdvanced(b.String(), true, false)
}
