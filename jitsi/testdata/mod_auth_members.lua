-- Lets the members of a Matrix room into the call of the room: what Jitsi's
-- Prosody does with AUTH_TYPE=matrix, as short as the tests need it.

local async = require "util.async";
local base64 = require "util.encodings".base64;
local formdecode = require "util.http".formdecode;
local http = require "net.http";
local json = require "util.json";
local random_id = require "util.id".medium;
local sasl = require "util.sasl";

local service = module:get_option_string("uvs_base_url");
local secret = module:get_option_string("uvs_auth_token");

-- The bytes that letters of base32 stand for, without what is left over.
local function from_base32(text)
	local out, bits, value = {}, 0, 0;
	for letter in text:upper():gmatch(".") do
		local five = ("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"):find(letter, 1, true);
		if not five then return nil; end
		bits, value = bits + 5, value * 32 + five - 1;
		if bits >= 8 then
			bits = bits - 8;
			out[#out + 1] = string.char(math.floor(value / 2^bits));
			value = math.floor(value % 2^bits);
		end
	end
	return table.concat(out);
end

-- What a JSON Web Token says about Matrix.
local function claims(token)
	local payload = token:match("^[^.]*%.([^.]*)%.[^.]*$");
	if not payload then return nil; end
	payload = payload:gsub("-", "+"):gsub("_", "/");
	local said = json.decode(base64.decode(payload .. ("="):rep(-#payload % 4)) or "");
	return said and said.context and said.context.matrix;
end

-- Whether who opened a session may join: true, or false and why not.
local function may_join(session)
	local matrix = session.jwt and claims(session.jwt);
	if not matrix then return false, "no token"; end
	if from_base32(session.conference or "") ~= matrix.room_id then return false, "another room"; end
	local wait, done = async.waiter();
	local answer;
	http.request(service .. "/verify/user_in_room", {
		headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. secret };
		body = json.encode({ token = matrix.token, room_id = matrix.room_id, matrix_server_name = matrix.server_name });
	}, function (body, code)
		answer = code == 200 and json.decode(body);
		done();
	end);
	wait();
	if answer and answer.results.user and answer.results.room_membership then return true; end
	return false, "not in the room";
end

module:hook_global("bosh-session", function (event)
	local query = formdecode(event.request.url.query or "");
	if type(query) == "table" then
		event.session.jwt, event.session.conference = query.token, query.room;
	end
end);

module:provides("auth", {
	get_sasl_handler = function (session)
		return sasl.new(module.host, { anonymous = function () return may_join(session); end });
	end;
});

-- Prosody's own tries until it succeeds.
sasl.registerMechanism("ANONYMOUS", { "anonymous" }, function (self)
	local joined, reason = self.profile.anonymous();
	if not joined then return "failure", "not-authorized", reason; end
	self.username = random_id():lower();
	return "success";
end);
