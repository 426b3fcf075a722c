package bridge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/bridgev2/bridgeconfig"
	"maunium.net/go/mautrix/bridgev2/matrix"

	"switchboard/homeserver/database/databasetest"
)

// TestOneTransaction sends a transaction again while it is still being taken.
func TestOneTransaction(t *testing.T) {
	databasetest.EachURL(t, testOneTransaction)
}

func testOneTransaction(t *testing.T, address string) {
	db, done, err := openDatabase(t.Context(), address, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	h := &Host{place: Place{ID: "irc"}, secrets: secrets{hsToken: "secret"}}
	if h.inbox, err = openInbox(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	mx, taken := newSide(matrix.NewConnector(&bridgeconfig.Config{})), make(chan chan struct{})
	mx.AS = appservice.Create()
	mx.AS.Router = http.NewServeMux()
	mx.AS.Router.HandleFunc(transactionPath, func(http.ResponseWriter, *http.Request) {
		over := make(chan struct{})
		taken <- over
		<-over
	})
	h.running.Store(&runner{mx: mx, turn: make(chan struct{}, 1)})
	send := func(ctx context.Context) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodPut, transactionPath+"1", strings.NewReader(`{"events":[]}`))
		r.Header.Set("Authorization", "Bearer secret")
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, r)
		return w.Code
	}
	statuses := make(chan int, 3)
	go func() { statuses <- send(context.Background()) }()
	first := <-taken
	again, cancel := context.WithCancel(context.Background())
	go func() { statuses <- send(again) }()
	cancel()
	select {
	case second := <-taken:
		t.Error("the transaction is taken twice at the same time")
		close(second)
		<-statuses
	case status := <-statuses:
		if status != http.StatusServiceUnavailable {
			t.Errorf("the transaction that can not be taken is answered with %d", status)
		}
	}
	close(first)
	if status := <-statuses; status != http.StatusOK {
		t.Errorf("the first is answered with %d", status)
	}
	go func() { statuses <- send(context.Background()) }()
	close(<-taken)
	if status := <-statuses; status != http.StatusOK {
		t.Errorf("the next is answered with %d", status)
	}
}
