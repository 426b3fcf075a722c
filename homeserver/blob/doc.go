// Package blob keeps the bytes of media under the hash of their content: equal
// bytes are stored once. It knows files, and neither what the bytes are nor
// who needs them; what nobody needs any more its caller deletes.
//
// Disk keeps them in a folder, S3 in a bucket, both under the same names, and
// Both in one of two places until all are in the other.
package blob
