package xmpp

import (
	"fmt"
	"slices"
	"strings"

	"maunium.net/go/mautrix/bridgev2/commands"
	"mellium.im/xmpp/jid"
)

// commands are what the bot understands besides what every bridge does.
func (c *Connector) commands() []commands.CommandHandler {
	command := func(name, args, text string, f func(*commands.Event, *session)) commands.CommandHandler {
		return &commands.FullHandler{
			Name: name, RequiresLogin: true,
			Help: commands.HelpMeta{Section: commands.HelpSectionChats, Description: text, Args: args},
			Func: func(ce *commands.Event) {
				if s := pick(ce); s != nil {
					f(ce, s)
				} else {
					ce.Reply("You are not logged in. Use `login` first.")
				}
			},
		}
	}
	return []commands.CommandHandler{
		command("join", "[_account_] <_room@server_> [_nick_] [_password_]", "Enter a room", join),
		command("part", "[_account_] [_room@server_]", "Leave a room, or that of this chat", part),
		command("nick", "[_account_] <_nick_>", "Change your nick in the room of this chat", nick),
		command("rooms", "", "List the rooms that you are in", listRooms),
		command("contacts", "[_account_]", "List your contacts, to start a chat with", listContacts),
		command("accept", "[_account_] <_address_>", "Let somebody see when you are there", accept),
	}
}

// pick finds the login that a command is for: the one that the first argument
// names, that of the room, or the first.
func pick(ce *commands.Event) *session {
	var first *session
	for _, ul := range ce.User.GetUserLogins() {
		s, ok := ul.Client.(*session)
		if !ok {
			continue
		}
		if len(ce.Args) > 0 && ce.Args[0] == string(ul.ID) {
			ce.Args = ce.Args[1:]
			return s
		}
		here := false
		if ce.Portal != nil {
			_, here = s.room(parse(ce.Portal.ID))
			here = here || ce.Portal.Receiver == ul.ID
		}
		if first == nil || here {
			first = s
		}
	}
	return first
}

func roomOf(ce *commands.Event, at int) (jid.JID, error) {
	if len(ce.Args) > at {
		j, err := checkUserID(strings.TrimSuffix(ce.Args[at], "?join"))
		return j.Bare(), err
	}
	if ce.Portal != nil {
		return parse(ce.Portal.ID), nil
	}
	return jid.JID{}, fmt.Errorf("say which room")
}

func join(ce *commands.Event, s *session) {
	if len(ce.Args) == 0 || len(ce.Args) > 3 {
		ce.Reply("Usage: `$cmdprefix join <room@server> [nick] [password]`")
		return
	}
	room, err := roomOf(ce, 0)
	args := append(slices.Clone(ce.Args), "", "")
	if args[2] != "" {
		ce.Redact() // the password is a secret
	}
	if err == nil {
		err = s.join(ce.Ctx, room, args[1], args[2])
	}
	if err != nil {
		ce.Reply("%s could not be entered: %v", ce.Args[0], err)
		return
	}
	portal, err := s.connector.br.GetExistingPortalByKey(ce.Ctx, s.key(room))
	if err != nil || portal == nil || portal.MXID == "" {
		ce.Reply("You are in %s, but its Matrix room could not be made; see the log of the bridge.", room)
		return
	}
	ce.Reply("You are in [%s](%s).", room, portal.MXID.URI().MatrixToURL())
}

func part(ce *commands.Event, s *session) {
	room, err := roomOf(ce, 0)
	if _, in := s.room(room); err != nil || !in {
		ce.Reply("You are not in a room of that name. Usage: `$cmdprefix part [room@server]`")
		return
	}
	select {
	case <-s.leave(ce.Ctx, room, strings.Join(ce.Args[min(1, len(ce.Args)):], " ")):
	case <-ce.Ctx.Done():
	}
	ce.Reply("You have left %s.", room)
}

func nick(ce *commands.Event, s *session) {
	room, err := roomOf(ce, 1)
	if _, in := s.client.Room(room); err != nil || !in || len(ce.Args) == 0 {
		ce.Reply("Usage, in a room: `$cmdprefix nick <nick>`; elsewhere: `$cmdprefix nick <nick> <room@server>`")
		return
	}
	if err := s.client.Rename(room, ce.Args[0]); err != nil {
		ce.Reply("%v", err)
		return
	}
	ce.Reply("%s is asked for. If it is taken, the room says so.", ce.Args[0])
}

func listRooms(ce *commands.Event, s *session) {
	var list []string
	s.update(func(m *LoginMetadata) {
		for room, st := range m.Rooms {
			list = append(list, fmt.Sprintf("* `%s` as %s", room, st.Nick))
		}
	})
	if len(list) == 0 {
		ce.Reply("You are in no room. Say `join room@server`.")
		return
	}
	slices.Sort(list)
	ce.ReplyAdvanced(strings.Join(list, "\n"), true, false)
}

func listContacts(ce *commands.Event, s *session) {
	var list []string
	s.mu.Lock()
	for _, item := range s.roster {
		list = append(list, strings.TrimSpace(fmt.Sprintf("* `%s` %s", item.JID, item.Name)))
	}
	s.mu.Unlock()
	if len(list) == 0 {
		ce.Reply("You have no contacts. Say `start-chat ivy@example.org` to write to somebody.")
		return
	}
	slices.Sort(list)
	ce.ReplyAdvanced(strings.Join(list, "\n"), true, false)
}

func accept(ce *commands.Event, s *session) {
	if len(ce.Args) != 1 {
		ce.Reply("Usage: `$cmdprefix accept <address>`")
		return
	}
	j, err := checkUserID(ce.Args[0])
	if err != nil {
		ce.Reply("%v", err)
		return
	}
	s.client.Subscription(j, "subscribed")
	s.client.Subscription(j, "subscribe")
	ce.Reply("%s can see when you are there, and is asked for the same.", j.Bare())
}
