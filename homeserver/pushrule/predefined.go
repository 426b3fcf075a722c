package pushrule

// masterRule matches everything and is the most important of all rules.
const masterRule = ".m.rule.master"

// userMark stands for the JSON of the user's ID in the conditions below.
const userMark = `"<user>"`

// predefinedRule is a server-default rule.
type predefinedRule struct {
	kind                    Kind
	id, conditions, actions string
}

// enabled tells whether the rule is on until the user changes it.
func (p *predefinedRule) enabled() bool { return p.id != masterRule }

// predefined are the server-default rules in the order of their importance.
// The override rules stand below the user's own, except for the first.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#predefined-rules
var predefined = []predefinedRule{
	{Override, masterRule, `[]`, `[]`},
	{Override, ".m.rule.suppress_notices",
		`[{"kind":"event_match","key":"content.msgtype","pattern":"m.notice"}]`, `[]`},
	{Override, ".m.rule.invite_for_me",
		`[{"kind":"event_match","key":"type","pattern":"m.room.member"},` +
			`{"kind":"event_match","key":"content.membership","pattern":"invite"},` +
			`{"kind":"event_match","key":"state_key","pattern":` + userMark + `}]`,
		`["notify",{"set_tweak":"sound","value":"default"}]`},
	{Override, ".m.rule.member_event",
		`[{"kind":"event_match","key":"type","pattern":"m.room.member"}]`, `[]`},
	{Override, ".m.rule.is_user_mention",
		`[{"kind":"event_property_contains","key":"content.m\\.mentions.user_ids","value":` + userMark + `}]`,
		`["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}]`},
	{Override, ".m.rule.is_room_mention",
		`[{"kind":"event_property_is","key":"content.m\\.mentions.room","value":true},` +
			`{"kind":"sender_notification_permission","key":"room"}]`,
		`["notify",{"set_tweak":"highlight"}]`},
	{Override, ".m.rule.tombstone",
		`[{"kind":"event_match","key":"type","pattern":"m.room.tombstone"},` +
			`{"kind":"event_match","key":"state_key","pattern":""}]`,
		`["notify",{"set_tweak":"highlight"}]`},
	{Override, ".m.rule.reaction",
		`[{"kind":"event_match","key":"type","pattern":"m.reaction"}]`, `[]`},
	{Override, ".m.rule.room.server_acl",
		`[{"kind":"event_match","key":"type","pattern":"m.room.server_acl"},` +
			`{"kind":"event_match","key":"state_key","pattern":""}]`, `[]`},
	{Override, ".m.rule.suppress_edits",
		`[{"kind":"event_property_is","key":"content.m\\.relates_to.rel_type","value":"m.replace"}]`, `[]`},
	{Underride, ".m.rule.call",
		`[{"kind":"event_match","key":"type","pattern":"m.call.invite"}]`,
		`["notify",{"set_tweak":"sound","value":"ring"}]`},
	{Underride, ".m.rule.encrypted_room_one_to_one",
		`[{"kind":"room_member_count","is":"2"},{"kind":"event_match","key":"type","pattern":"m.room.encrypted"}]`,
		`["notify",{"set_tweak":"sound","value":"default"}]`},
	{Underride, ".m.rule.room_one_to_one",
		`[{"kind":"room_member_count","is":"2"},{"kind":"event_match","key":"type","pattern":"m.room.message"}]`,
		`["notify",{"set_tweak":"sound","value":"default"}]`},
	{Underride, ".m.rule.message",
		`[{"kind":"event_match","key":"type","pattern":"m.room.message"}]`, `["notify"]`},
	{Underride, ".m.rule.encrypted",
		`[{"kind":"event_match","key":"type","pattern":"m.room.encrypted"}]`, `["notify"]`},
}
