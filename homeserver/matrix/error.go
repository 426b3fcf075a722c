package matrix

import (
	"fmt"
	"net/http"
	"time"
)

// Code is an errcode of the specification.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
type Code string

// The errcodes that we answer with.
const (
	AppserviceLoginUnsupported  Code = "M_APPSERVICE_LOGIN_UNSUPPORTED"
	BadAlias                    Code = "M_BAD_ALIAS"
	BadJSON                     Code = "M_BAD_JSON"
	BadState                    Code = "M_BAD_STATE"
	BadStatus                   Code = "M_BAD_STATUS"
	CannotLeaveServerNoticeRoom Code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
	CannotOverwriteMedia        Code = "M_CANNOT_OVERWRITE_MEDIA"
	CaptchaInvalid              Code = "M_CAPTCHA_INVALID"
	CaptchaNeeded               Code = "M_CAPTCHA_NEEDED"
	ConnectionFailed            Code = "M_CONNECTION_FAILED"
	ConnectionTimeout           Code = "M_CONNECTION_TIMEOUT"
	DuplicateAnnotation         Code = "M_DUPLICATE_ANNOTATION"
	Exclusive                   Code = "M_EXCLUSIVE"
	Forbidden                   Code = "M_FORBIDDEN"
	GuestAccessForbidden        Code = "M_GUEST_ACCESS_FORBIDDEN"
	IncompatibleRoomVersion     Code = "M_INCOMPATIBLE_ROOM_VERSION"
	InvalidParam                Code = "M_INVALID_PARAM"
	InvalidRoomState            Code = "M_INVALID_ROOM_STATE"
	InvalidSignature            Code = "M_INVALID_SIGNATURE"
	InvalidUsername             Code = "M_INVALID_USERNAME"
	InviteBlocked               Code = "M_INVITE_BLOCKED"
	MaxDelayExceeded            Code = "M_MAX_DELAY_EXCEEDED"
	KeyTooLarge                 Code = "M_KEY_TOO_LARGE"
	LimitExceeded               Code = "M_LIMIT_EXCEEDED"
	MissingParam                Code = "M_MISSING_PARAM"
	MissingToken                Code = "M_MISSING_TOKEN"
	NotFound                    Code = "M_NOT_FOUND"
	NotJSON                     Code = "M_NOT_JSON"
	NotYetUploaded              Code = "M_NOT_YET_UPLOADED"
	ProfileTooLarge             Code = "M_PROFILE_TOO_LARGE"
	ResourceLimitExceeded       Code = "M_RESOURCE_LIMIT_EXCEEDED"
	RoomInUse                   Code = "M_ROOM_IN_USE"
	ServerNotTrusted            Code = "M_SERVER_NOT_TRUSTED"
	ThreepidAuthFailed          Code = "M_THREEPID_AUTH_FAILED"
	ThreepidDenied              Code = "M_THREEPID_DENIED"
	ThreepidInUse               Code = "M_THREEPID_IN_USE"
	ThreepidMediumNotSupported  Code = "M_THREEPID_MEDIUM_NOT_SUPPORTED"
	ThreepidNotFound            Code = "M_THREEPID_NOT_FOUND"
	TooLarge                    Code = "M_TOO_LARGE"
	UnableToAuthoriseJoin       Code = "M_UNABLE_TO_AUTHORISE_JOIN"
	UnableToGrantJoin           Code = "M_UNABLE_TO_GRANT_JOIN"
	Unauthorized                Code = "M_UNAUTHORIZED"
	Unknown                     Code = "M_UNKNOWN"
	UnknownDevice               Code = "M_UNKNOWN_DEVICE"
	UnknownPos                  Code = "M_UNKNOWN_POS"
	UnknownToken                Code = "M_UNKNOWN_TOKEN"
	Unrecognized                Code = "M_UNRECOGNIZED"
	UnsupportedRoomVersion      Code = "M_UNSUPPORTED_ROOM_VERSION"
	URLNotSet                   Code = "M_URL_NOT_SET"
	UserDeactivated             Code = "M_USER_DEACTIVATED"
	UserInUse                   Code = "M_USER_IN_USE"
	UserLimitExceeded           Code = "M_USER_LIMIT_EXCEEDED"
	UserLocked                  Code = "M_USER_LOCKED"
	UserSuspended               Code = "M_USER_SUSPENDED"
	WeakPassword                Code = "M_WEAK_PASSWORD"
	WrongRoomKeysVersion        Code = "M_WRONG_ROOM_KEYS_VERSION"
)

// usual is the HTTP status of a code where an Error names none. Codes that are
// not listed mean 400.
var usual = map[Code]int{
	BadStatus:             http.StatusBadGateway,
	CannotOverwriteMedia:  http.StatusConflict,
	ConnectionFailed:      http.StatusBadGateway,
	ConnectionTimeout:     http.StatusGatewayTimeout,
	Forbidden:             http.StatusForbidden,
	GuestAccessForbidden:  http.StatusForbidden,
	InviteBlocked:         http.StatusForbidden,
	LimitExceeded:         http.StatusTooManyRequests,
	MissingToken:          http.StatusUnauthorized,
	NotFound:              http.StatusNotFound,
	NotYetUploaded:        http.StatusGatewayTimeout,
	ResourceLimitExceeded: http.StatusForbidden,
	ThreepidAuthFailed:    http.StatusForbidden,
	ThreepidDenied:        http.StatusForbidden,
	TooLarge:              http.StatusRequestEntityTooLarge,
	Unauthorized:          http.StatusUnauthorized,
	Unknown:               http.StatusInternalServerError,
	UnknownToken:          http.StatusUnauthorized,
	Unrecognized:          http.StatusNotFound,
	UserDeactivated:       http.StatusForbidden,
	UserLimitExceeded:     http.StatusForbidden,
	UserLocked:            http.StatusUnauthorized,

	CannotLeaveServerNoticeRoom: http.StatusForbidden,
	UserSuspended:               http.StatusForbidden,
	WrongRoomKeysVersion:        http.StatusForbidden,
}

// Error is a failure the other side may see. Text goes over the wire, so it
// never holds what only the operator may know; Cause stays in our logs.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
type Error struct {
	Code   Code
	Text   string
	Status int   // 0 means the usual status of Code
	Cause  error // may be nil

	// RetryAfter is when a LimitExceeded request may be repeated.
	RetryAfter time.Duration

	// Extra are further top-level fields of the answer, such as "soft_logout"
	// or "room_version". May be nil.
	Extra map[string]any
}

// Errorf makes an Error with the usual status of code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Text
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// HTTPStatus is the status of the answer that carries the error.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	if s := usual[e.Code]; s != 0 {
		return s
	}
	return http.StatusBadRequest
}
