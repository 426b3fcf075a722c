package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

const allCaps = "batch cap-notify echo-message extended-join labeled-response message-tags multi-prefix server-time userhost-in-names account-tag"

func TestRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.run()
		s := <-w.accept
		s.want("CAP LS 302", "NICK alice", "USER ident 0 * :Alice A")
		s.send(":irc.test CAP * LS * :server-time unknown/cap")
		s.send(":irc.test CAP * LS :batch=x echo-message")
		s.want("CAP REQ batch", "CAP REQ echo-message", "CAP REQ server-time")
		s.send("PING :cookie")
		s.want("PONG cookie")
		s.send(":irc.test CAP * ACK :batch")
		s.send(":irc.test CAP * NAK :echo-message")
		s.send(":irc.test CAP * ACK :server-time")
		s.want("CAP END")
		s.numerics()
		if e := one[Connected](w); e.Nick != "alice" || e.Wanted != "alice" {
			t.Errorf("connected as %+v", e)
		}
		if !w.Online() || !w.Enabled("batch") || w.Enabled("echo-message") {
			t.Error("wrong state after the welcome")
		}

		s.send(":irc.test CAP alice NEW :echo-message account-tag")
		s.want("CAP REQ account-tag", "CAP REQ echo-message")
		s.send(":irc.test CAP alice ACK :echo-message")
		s.send(":irc.test CAP alice ACK :account-tag")
		s.send(":irc.test CAP alice DEL :batch")
		synctest.Wait()
		if w.Enabled("batch") || !w.Enabled("echo-message") {
			t.Error("CAP NEW and DEL were not followed")
		}
		w.stop(s)
	})
}

func TestSASL(t *testing.T) {
	long := strings.Repeat("p", 500)
	tests := []struct {
		name, offer, password, verdict, wantErr string
	}{
		{"accepted", "sasl=EXTERNAL,PLAIN", "secret", ":irc.test 903 alice :fine", ""},
		{"no list of mechanisms", "sasl", "secret", ":irc.test 903 alice :fine", ""},
		{"long password", "sasl", long, ":irc.test 903 alice :fine", ""},
		{"wrong password", "sasl", "bad", ":irc.test 904 alice :Invalid account credentials", "Invalid account credentials"},
		{"no PLAIN", "sasl=EXTERNAL", "secret", "", "does not offer SASL PLAIN"},
		{"no SASL", "batch", "secret", "", "does not offer SASL PLAIN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{SASL: &SASL{Account: "acc", Password: tt.password}})
				result := make(chan error, 1)
				go func() { result <- w.Connect(context.Background()) }()
				s := <-w.accept
				s.want("CAP LS 302", "NICK alice", "USER ident 0 * :Alice A")
				s.send(":irc.test CAP * LS :%s", tt.offer)
				if tt.verdict != "" {
					s.want("CAP REQ sasl")
					s.send(":irc.test CAP * ACK :sasl")
					s.want("AUTHENTICATE PLAIN")
					s.send("AUTHENTICATE +")
					var got strings.Builder
					for {
						chunk := strings.TrimPrefix(s.next(), "AUTHENTICATE ")
						got.WriteString(strings.TrimPrefix(chunk, "+"))
						if len(chunk) < 400 {
							break
						}
					}
					if plain, _ := base64.StdEncoding.DecodeString(got.String()); string(plain) != "acc\x00acc\x00"+tt.password {
						t.Errorf("credentials are %q", plain)
					}
					s.send("%s", tt.verdict)
				} else if s.offersBatch(tt.offer) {
					s.want("CAP REQ batch")
					s.send(":irc.test CAP * ACK :batch")
				}
				if tt.wantErr == "" {
					s.want("CAP END")
					s.numerics()
				}
				err := <-result
				if tt.wantErr == "" && err != nil {
					t.Fatal(err)
				}
				if tt.wantErr != "" && (!errors.Is(err, ErrSASL) || !strings.Contains(err.Error(), tt.wantErr)) {
					t.Fatalf("got %v, want %q", err, tt.wantErr)
				}
				_ = s.conn.Close()
				if err == nil {
					w.drop(w.link)
				}
			})
		})
	}
}

func (s *script) offersBatch(offer string) bool { return offer == "batch" }

func TestNickInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		result := make(chan error, 1)
		go func() { result <- w.Connect(context.Background()) }()
		s := <-w.accept
		s.want("CAP LS 302", "NICK alice", "USER ident 0 * :Alice A")
		s.send(":irc.test 433 * alice :Nickname is already in use.")
		if err := <-result; !errors.Is(err, ErrNickInUse) || !strings.Contains(err.Error(), "already in use.") {
			t.Errorf("got %v", err)
		}
	})
}

func TestNickFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{NickFallback: true})
		w.run()
		s := <-w.accept
		s.want("CAP LS 302", "NICK alice", "USER ident 0 * :Alice A")
		s.send(":irc.test 433 * alice :Nickname is already in use.")
		s.want("NICK alice_")
		s.send(":irc.test CAP * LS :")
		s.want("CAP END")
		s.send(":irc.test 001 alice_ :Welcome")
		s.send(":irc.test 422 alice_ :no MOTD")
		if e := one[Connected](w); e.Nick != "alice_" || e.Wanted != "alice" {
			t.Errorf("connected as %+v", e)
		}
		// After a minute it asks again, and once more after a refusal.
		s.want("NICK alice", "PING :sb1")
		s.send(":irc.test 433 alice_ alice :Nickname is already in use.")
		s.send(":irc.test PONG irc.test :sb1")
		s.want("NICK alice", "PING :sb2")
		s.send(":alice_!ident@h NICK alice")
		s.send(":irc.test PONG irc.test :sb2")
		if e := one[NickRegained](w); e.Nick != "alice" || w.Nick() != "alice" {
			t.Errorf("regained %+v, nick is %s", e, w.Nick())
		}
		time.Sleep(3 * regainInterval / 2)
		select {
		case line := <-s.in:
			t.Errorf("sent %q though the nick is ours", line)
		default:
		}
		w.stop(s)
	})
}

func TestFloodControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Burst: 3, Interval: time.Second})
		w.run()
		s := <-w.accept
		s.welcome("echo-message")
		start := time.Now()
		outcomes := make(chan Outcome, 1)
		go w.Say(Text, "#a", "", "1\n2\n3\n4\n5", "", func(o Outcome) { outcomes <- o })
		for i := range 5 {
			s.want(fmt.Sprintf("PRIVMSG #a %d", i+1))
			if got, want := time.Since(start), time.Duration(max(0, i-2))*time.Second; got != want {
				t.Errorf("line %d came after %v, want %v", i+1, got, want)
			}
			if i == 3 { // an answer to the server does not wait
				s.send("PING x")
				s.want("PONG x")
			}
			s.send("@msgid=m%d :alice!ident@h PRIVMSG #a %d", i+1, i+1)
		}
		if o := <-outcomes; o.Err != nil {
			t.Error(o.Err)
		}
		w.stop(s)
	})
}

func TestEcho(t *testing.T) {
	for _, caps := range []string{"echo-message", allCaps} {
		t.Run(caps, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{})
				w.run()
				s := <-w.accept
				s.welcome(caps)
				var got []Outcome
				go w.Say(Text, "#a", "", "hello", "", func(o Outcome) { got = append(got, o) })
				line := s.next()
				label := ""
				if caps == allCaps {
					var ok bool
					if label, line, ok = strings.Cut(line, " "); !ok || !strings.HasPrefix(label, "@label=") {
						t.Fatalf("no label in %q", label)
					}
					label = ";" + label[1:]
				}
				if line != "PRIVMSG #a hello" {
					t.Errorf("sent %q", line)
				}
				take[Message](w)
				s.send("@msgid=m1;time=1999-01-02T03:04:05.678Z%s :alice!ident@h PRIVMSG #A :hello", label)
				synctest.Wait()
				if len(got) != 1 || got[0].Err != nil || got[0].ID != "m1" {
					t.Fatalf("outcomes %+v", got)
				}
				if all := take[Message](w); len(all) != 0 {
					t.Errorf("the echo became a message: %+v", all)
				}
				// The same from another client of ours is a message.
				s.send("@msgid=m2 :alice!ident@h PRIVMSG #a :hello again")
				if e := one[Message](w); !e.Source.Own || e.Text != "hello again" || e.ID != "m2" {
					t.Errorf("got %+v", e)
				}
				w.stop(s)
			})
		})
	}
}

func TestRefused(t *testing.T) {
	for _, caps := range []string{"batch", "echo-message", allCaps} {
		t.Run(caps, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{})
				w.run()
				s := <-w.accept
				s.welcome(caps)
				outcomes := make(chan Outcome, 2)
				go func() {
					w.Say(Text, "#a", "", "one", "", func(o Outcome) { outcomes <- o })
					w.Say(Text, "#b", "", "two", "", func(o Outcome) { outcomes <- o })
				}()
				var tags [2]string
				var pings []string
				for i, want := range []string{"PRIVMSG #a one", "PRIVMSG #b two"} {
					line := s.next()
					if tag, rest, ok := strings.Cut(line, " "); ok && strings.HasPrefix(tag, "@") {
						tags[i], line = tag+" ", rest
					}
					if line != want {
						t.Errorf("sent %q, want %q", line, want)
					}
					if caps == "batch" {
						pings = append(pings, strings.TrimPrefix(s.next(), "PING :"))
					}
				}
				s.send("%s:irc.test 404 alice #a :Cannot send to channel", tags[0])
				if caps == "batch" {
					s.send(":irc.test PONG irc.test :%s", pings[0])
					s.send(":irc.test PONG irc.test :%s", pings[1])
				} else {
					s.send("%s:alice!i@h PRIVMSG #b :two", tags[1])
				}
				var refusal *ReplyError
				if o := <-outcomes; !errors.As(o.Err, &refusal) || refusal.Code != "404" || refusal.Text != "Cannot send to channel" {
					t.Errorf("first: %+v", o)
				}
				if o := <-outcomes; o.Err != nil {
					t.Errorf("second: %+v", o)
				}
				w.stop(s)
			})
		})
	}
}

// TestOwnNick changes the nick on a server that names the old nick as the
// source, and on one that, like InspIRCd, names the new one.
func TestOwnNick(t *testing.T) {
	for _, source := range []string{"alice", "alicia"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{})
			w.run()
			s := <-w.accept
			s.welcome(allCaps)
			result := make(chan error, 1)
			go func() { result <- w.SetNick(context.Background(), "alicia") }()
			tag, line, _ := strings.Cut(s.next(), " ")
			if line != "NICK alicia" {
				t.Errorf("sent %q", line)
			}
			s.send("%s :%s!ident@h NICK alicia", tag, source)
			if err := <-result; err != nil || w.Nick() != "alicia" {
				t.Errorf("the nick is %s, %v", w.Nick(), err)
			}
			if e := one[Renamed](w); !e.Source.Own || e.Source.Name != "alice" || e.Nick != "alicia" {
				t.Errorf("got %+v", e)
			}
			w.stop(s)
		})
	}
}

func TestLostInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Burst: 1, Interval: time.Second})
		w.run()
		s := <-w.accept
		s.welcome("echo-message")
		outcomes := make(chan Outcome, 2)
		go func() {
			w.Say(Text, "#a", "", "one", "", func(o Outcome) { outcomes <- o })
			w.Say(Text, "#a", "", "two", "", func(o Outcome) { outcomes <- o })
		}()
		s.want("PRIVMSG #a one")
		synctest.Wait() // the other one is in the queue
		_ = s.conn.Close()
		if o := <-outcomes; !errors.Is(o.Err, ErrUnconfirmed) {
			t.Errorf("the line in flight: %v", o.Err)
		}
		if o := <-outcomes; !errors.Is(o.Err, ErrNotSent) {
			t.Errorf("the line in the queue: %v", o.Err)
		}
		s = <-w.accept
		w.stop(s)
	})
}

// TestLabelledBatch joins a channel: the answer is a batch, its end is the
// outcome.
func TestLabelledBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.run()
		s := <-w.accept
		s.welcome(allCaps)
		var got []Outcome
		go w.Join("#Chan", "key", func(o Outcome) { got = append(got, o) })
		tag, line, _ := strings.Cut(s.next(), " ")
		if line != "JOIN #Chan key" {
			t.Errorf("sent %q", line)
		}
		s.send("%s :irc.test BATCH +r labeled-response", tag)
		s.send("@batch=r :alice!ident@host JOIN #Chan acc :Alice A")
		s.send("@batch=r :irc.test 332 alice #Chan :the topic")
		s.send("@batch=r :irc.test 353 alice = #Chan :@+bob!b@h alice!ident@host")
		s.send("@batch=r :irc.test 366 alice #Chan :end")
		s.want("MODE #Chan")
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("outcome before the end of the batch")
		}
		s.send(":irc.test BATCH -r")
		synctest.Wait()
		if len(got) != 1 || got[0].Err != nil {
			t.Fatalf("outcomes %+v", got)
		}
		ch, ok := w.Channel("#cHAN")
		if !ok || !ch.Synced || ch.Topic != "the topic" || len(ch.Members) != 2 {
			t.Fatalf("channel is %+v", ch)
		}
		if bob, ok := ch.Member(RFC1459, "BOB"); !ok || bob.Modes != "ov" {
			t.Errorf("bob is %+v", bob)
		}
		if want := []Wanted{{"#Chan", "key"}}; !slices.Equal(w.Wanted(), want) {
			t.Errorf("wanted are %v", w.Wanted())
		}
		w.stop(s)
	})
}

func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.Want([]Wanted{{"#a", ""}, {"#b", "key"}})
		w.run()
		for range 3 {
			s := <-w.accept
			s.welcome("")
			s.want("JOIN #a", "PING :sb1", "JOIN #b key", "PING :sb2")
			s.send(":alice!ident@h JOIN #a")
			s.send(":irc.test 353 alice = #a :alice bob")
			s.send(":irc.test 366 alice #a :end")
			s.send(":irc.test 475 alice #b :Cannot join channel (wrong key)")
			s.want("MODE #a")
			s.send(":irc.test PONG irc.test :sb1")
			s.send(":irc.test PONG irc.test :sb2")
			if e := one[JoinFailed](w); e.Channel != "#b" {
				t.Errorf("failed: %+v", e)
			}
			w.Want([]Wanted{{"#a", ""}, {"#b", "key"}})
			_ = s.conn.Close()
			if e := one[Disconnected](w); e.Err == nil || e.Retry <= 0 {
				t.Errorf("disconnected: %+v", e)
			}
			if _, ok := w.Channel("#a"); ok {
				t.Error("a channel outlived its connection")
			}
		}
		s := <-w.accept
		w.stop(s)
	})
}

// TestBackoff lets a hundred attempts fail: the waits grow, stay bounded, and
// differ.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.nowhere = true
		w.run()
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		w.cancel()
		<-w.done
		n := len(w.dialled)
		if n < 50 || n > 160 {
			t.Errorf("%d attempts in six hours", n)
		}
		if first := w.dialled[1].Sub(w.dialled[0]); first > 3*time.Second {
			t.Errorf("the second attempt came after %v", first)
		}
		waits := make(map[time.Duration]bool)
		for i := n - 20; i < n; i++ {
			d := w.dialled[i].Sub(w.dialled[i-1])
			waits[d] = true
			if d > maxBackoff*3/2 || d < maxBackoff/2 {
				t.Errorf("waited %v", d)
			}
		}
		if len(waits) < 15 {
			t.Error("no jitter")
		}
	})
}

func TestDeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.run()
		s := <-w.accept
		s.welcome("")
		take[Connected](w)
		start := time.Now()
		s.want("PING idle")
		if d := time.Since(start); d != idleTimeout {
			t.Errorf("asked after %v", d)
		}
		s.send("PONG idle")
		s.want("PING idle")
		s.want("") // no answer: the client hangs up
		if d := time.Since(start); d != 2*idleTimeout+pongTimeout {
			t.Errorf("gave up after %v", d)
		}
		s = <-w.accept
		w.stop(s)
	})
}

func TestPermanentErrors(t *testing.T) {
	for _, line := range []string{
		":irc.test 465 alice :You are banned",
		"ERROR :Closing link: (alice@h) [G-Lined: spam]",
		":irc.test 432 * alice :Erroneous Nickname",
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{})
			w.run()
			s := <-w.accept
			s.want("CAP LS 302", "NICK alice", "USER ident 0 * :Alice A")
			s.send("%s", line)
			if err := <-w.done; !permanent(err) {
				t.Errorf("%s: Run ended with %v", line, err)
			}
			if e := one[Disconnected](w); e.Retry >= 0 {
				t.Errorf("%s: %+v", line, e)
			}
		})
	}
}

func TestInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.run()
		s := <-w.accept
		s.welcome("echo-message")
		go w.Say(Text, "#a", "<x\r\nQUIT> ", "one\r\nQUIT :x\x00y\rJOIN #b", "", func(Outcome) {})
		s.want("PRIVMSG #a :<x QUIT> one", "PRIVMSG #a :<x QUIT> QUIT :xy", "PRIVMSG #a :<x QUIT> JOIN #b")
		for _, bad := range []string{"#a\r\nQUIT", "#a b", "", ":a"} {
			var got error
			w.Do(ircmsg.MakeMessage(nil, "", "TOPIC", bad, "x"), func(o Outcome) { got = o.Err })
			if got == nil {
				t.Errorf("target %q was sent", bad)
			}
		}
		var got error
		w.Do(ircmsg.MakeMessage(nil, "", "TOPIC", "#a", "x\r\nQUIT"), func(o Outcome) { got = o.Err })
		if got == nil {
			t.Error("a topic of two lines was sent")
		}
		w.stop(s)
	})
}

// TestLineLength fills lines to the last byte: as others receive them, with
// our full name in front, they have 512.
func TestLineLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.run()
		s := <-w.accept
		s.welcome("echo-message")
		go w.Say(Action, "#chan", "", strings.Repeat("ä", 1000), "", func(Outcome) {})
		total := 0
		for total < 2000 {
			line := s.next()
			if n := len(":alice!ident@host.test ") + len(line) + 2; n > 512 || total+500 < 2000 && n < 511 {
				t.Errorf("line has %d bytes", n)
			}
			total += strings.Count(line, "ä") * 2
		}
		if total != 2000 {
			t.Errorf("%d bytes came", total)
		}
		w.stop(s)
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		w.run()
		s := <-w.accept
		s.welcome("")
		take[Connected](w)
		w.cancel()
		s.want("QUIT :Bridge is stopping", "")
		if err := <-w.done; err != nil {
			t.Error(err)
		}
	})
}
