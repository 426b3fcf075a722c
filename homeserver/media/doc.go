// Package media knows the files that users upload and download: who uploaded
// what under which ID, sizes and types, thumbnails. Bytes lie in a blob store
// under the hash of their content, each once. Files of other servers
// it fetches, and keeps for a while.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
package media
