package appservices

// Route is an operation that appservices are called for.
type Route struct{ Operation, Method, Path string }

// Routes lists what appservices are called for, for the law that compares it
// with the specification.
func Routes() []Route {
	return []Route{
		{"sendTransaction", "PUT", "/_matrix/app/v1/transactions/{txnId}"},
		{"ping", "POST", "/_matrix/app/v1/ping"},
		{"queryUserById", "GET", "/_matrix/app/v1/users/{userId}"},
		{"queryRoomByAlias", "GET", "/_matrix/app/v1/rooms/{roomAlias}"},
		{"getProtocolMetadata", "GET", "/_matrix/app/v1/thirdparty/protocol/{protocol}"},
		{"queryUserByProtocol", "GET", "/_matrix/app/v1/thirdparty/user/{protocol}"},
		{"queryLocationByProtocol", "GET", "/_matrix/app/v1/thirdparty/location/{protocol}"},
		{"queryLocationByAlias", "GET", "/_matrix/app/v1/thirdparty/location"},
		{"queryUserByID", "GET", "/_matrix/app/v1/thirdparty/user"},
	}
}
