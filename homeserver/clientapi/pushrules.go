package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
)

var pushRuleRoutes = []route{
	{"getPushRules", "GET /_matrix/client/v3/pushrules/{$}", users, (*API).getPushRules},
	{"", "GET /_matrix/client/v3/pushrules", users, (*API).getPushRules},
	{"getPushRulesGlobal", "GET /_matrix/client/v3/pushrules/global/{$}", users, (*API).getPushRulesGlobal},
	{"", "GET /_matrix/client/v3/pushrules/global", users, (*API).getPushRulesGlobal},
	{"getPushRule", "GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}", users, (*API).getPushRule},
	{"setPushRule", "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}", users, (*API).setPushRule},
	{"deletePushRule", "DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}", users, (*API).deletePushRule},
	{"isPushRuleEnabled", "GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled", users, (*API).isPushRuleEnabled},
	{"setPushRuleEnabled", "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled", users, (*API).setPushRuleEnabled},
	{"getPushRuleActions", "GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions", users, (*API).getPushRuleActions},
	{"setPushRuleActions", "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions", users, (*API).setPushRuleActions},
}

// getPushRules shows all push rules of the user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules
func (a *API) getPushRules(r *request) (any, error) { return a.Accounts.PushRules(r.Context(), r.User) }

// getPushRulesGlobal shows all push rules of the user, without the scope around
// them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal
func (a *API) getPushRulesGlobal(r *request) (any, error) {
	rules, err := a.Accounts.PushRules(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return rules.Global()
}

// rule finds the rule that the path names.
func (a *API) rule(r *request) (*pushrule.Rule, error) {
	kind, err := pushrule.ParseKind(r.PathValue("kind"))
	if err != nil {
		return nil, err
	}
	rules, err := a.Accounts.PushRules(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return rules.Rule(kind, r.PathValue("ruleId"))
}

// editRules changes the user's rules with the kind and ID of the path.
func (a *API) editRules(r *request, edit func(rs *pushrule.Ruleset, k pushrule.Kind, id string) error) (any, error) {
	kind, err := pushrule.ParseKind(r.PathValue("kind"))
	if err != nil {
		return nil, err
	}
	err = a.Accounts.EditPushRules(r.Context(), r.User, func(rs *pushrule.Ruleset) error { return edit(rs, kind, r.PathValue("ruleId")) })
	return edge.Empty{}, err
}

// getPushRule shows one push rule.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid
func (a *API) getPushRule(r *request) (any, error) { return a.rule(r) }

// setPushRule adds or replaces a push rule.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid
func (a *API) setPushRule(r *request) (any, error) {
	body, err := r.Object()
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	return a.editRules(r, func(rs *pushrule.Ruleset, k pushrule.Kind, id string) error {
		return rs.Put(k, id, body, q.Get("before"), q.Get("after"))
	})
}

// deletePushRule deletes a push rule of the user's own.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid
func (a *API) deletePushRule(r *request) (any, error) {
	return a.editRules(r, func(rs *pushrule.Ruleset, k pushrule.Kind, id string) error { return rs.Delete(k, id) })
}

// isPushRuleEnabled tells whether a push rule is in force.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled
func (a *API) isPushRuleEnabled(r *request) (any, error) {
	rule, err := a.rule(r)
	if err != nil {
		return nil, err
	}
	return map[string]bool{"enabled": rule.Enabled}, nil
}

// setPushRuleEnabled turns a push rule on or off.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled
func (a *API) setPushRuleEnabled(r *request) (any, error) {
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Enabled == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "enabled is needed")
	}
	return a.editRules(r, func(rs *pushrule.Ruleset, k pushrule.Kind, id string) error { return rs.Enable(k, id, *body.Enabled) })
}

// getPushRuleActions shows what a push rule does.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidactions
func (a *API) getPushRuleActions(r *request) (any, error) {
	rule, err := a.rule(r)
	if err != nil {
		return nil, err
	}
	actions := rule.Actions
	if actions == nil {
		actions = []json.RawMessage{}
	}
	return map[string][]json.RawMessage{"actions": actions}, nil
}

// setPushRuleActions changes what a push rule does.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions
func (a *API) setPushRuleActions(r *request) (any, error) {
	var body struct {
		Actions json.RawMessage `json:"actions"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	return a.editRules(r, func(rs *pushrule.Ruleset, k pushrule.Kind, id string) error {
		return rs.SetActions(k, id, body.Actions)
	})
}
