package fedapi

import (
	"encoding/json"

	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

var transactionRoutes = []route{
	{"sendTransaction", "PUT /_matrix/federation/v1/send/{txnId}", servers, large, (*API).sendTransaction},
}

// sendTransaction takes events and ephemeral messages.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
func (a *API) sendTransaction(r *request) (any, error) {
	var body struct {
		Origin *matrix.ServerName `json:"origin"`
		PDUs   []json.RawMessage  `json:"pdus"`
		EDUs   []federation.EDU   `json:"edus"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Origin != nil && *body.Origin != r.origin {
		return nil, matrix.Errorf(matrix.Forbidden, "the transaction is not %s's", r.origin)
	}
	results, err := a.Federation.Transaction(r.Context(), r.origin, federation.Transaction{ID: r.PathValue("txnId"), PDUs: body.PDUs, EDUs: body.EDUs})
	if err != nil {
		return nil, err
	}
	return map[string]federation.Results{"pdus": results}, nil
}
