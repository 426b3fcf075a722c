// Package matrix knows the words of the specification: identifiers, errcodes,
// and the room versions with what each allows. It does no I/O and decides
// nothing.
package matrix
