package whatsapp

import (
	"strings"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/types"
	"maunium.net/go/mautrix/bridgev2/commands"
)

// commands are what the bot understands besides what every bridge does.
func (c *Connector) commands() []commands.CommandHandler {
	help := func(args, text string) commands.HelpMeta {
		return commands.HelpMeta{Section: commands.HelpSectionChats, Description: text, Args: args}
	}
	return []commands.CommandHandler{
		&commands.FullHandler{Name: "join", Func: c.join, RequiresLogin: true, Help: help("<_link_>", "Join a group by its invitation link")},
		&commands.FullHandler{Name: "groups", Func: c.groups, RequiresLogin: true, Help: help("", "Make the rooms of all your groups")},
	}
}

// sessionOf is the session of whoever gives a command, or nil.
func sessionOf(ce *commands.Event) *session {
	if login := ce.User.GetDefaultLogin(); login != nil {
		if s, ok := login.Client.(*session); ok && s.IsLoggedIn() {
			return s
		}
	}
	ce.Reply("You are not linked to WhatsApp at present. Say `login qr`.")
	return nil
}

// join joins a group.
func (c *Connector) join(ce *commands.Event) {
	if len(ce.Args) != 1 || !strings.HasPrefix(ce.Args[0], whatsmeow.InviteLinkPrefix) {
		ce.Reply("Usage: `$cmdprefix join %s…`", whatsmeow.InviteLinkPrefix)
		return
	}
	s := sessionOf(ce)
	if s == nil {
		return
	}
	var group types.JID
	if _, err := s.ask(ce.Ctx, func() (err error) {
		group, err = s.client.JoinGroupWithLink(ce.Ctx, ce.Args[0])
		return err
	}); err != nil {
		ce.Reply("You could not join: %v", err)
		return
	}
	info, err := s.client.GetGroupInfo(ce.Ctx, group)
	if err != nil { // an admin must agree first
		ce.Reply("You have asked to join. The room appears when an admin has agreed.")
		return
	}
	s.resync(ce.Ctx, info)
	ce.Reply("You are in %s.", info.Name)
}

// groups makes the rooms of all groups.
func (c *Connector) groups(ce *commands.Event) {
	s := sessionOf(ce)
	if s == nil {
		return
	}
	list, err := s.client.GetJoinedGroups(ce.Ctx)
	if err != nil {
		ce.Reply("WhatsApp does not tell your groups: %v", err)
		return
	}
	for _, g := range list {
		s.resync(ce.Ctx, g)
	}
	ce.Reply("You are in %d groups.", len(list))
}
