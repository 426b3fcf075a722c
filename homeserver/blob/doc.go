// Package blob keeps the bytes of media under the hash of their content: equal
// bytes are stored once. It knows files, and neither what the bytes are nor
// who needs them; what nobody needs any more its caller deletes.
//
// Disk keeps them in a folder. Another place, such as S3, is another type with
// the methods of Disk.
package blob
