package main

import (
	_ "embed"
	"html/template"
	"net/http"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
)

//go:embed startpage.html
var startPageText string

var startPage = template.Must(template.New("").Parse(startPageText))

// isStartPage tells whether somebody opened the address of the server in a
// browser.
func isStartPage(r *http.Request) bool {
	return r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// serveStartPage tells people how to get from there into an app.
func (p *process) serveStartPage(w http.ResponseWriter) {
	for key, value := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
		"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	} {
		w.Header().Set(key, value)
	}
	startPage.Execute(w, struct { // whoever asked is gone if this fails
		Name  matrix.ServerName
		URL   string
		Mode  account.Mode
		Calls bool
		Help  string
	}{p.conf.ServerName, p.conf.clientURL(), p.conf.Registration.Mode, p.callTest != nil, p.conf.Support.Page})
}
