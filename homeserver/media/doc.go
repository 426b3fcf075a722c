// Package media knows the files that users upload and download: who uploaded
// what under which ID, sizes and types, thumbnails. Bytes lie in a blob store
// under the hash of their content, each once. It fetches nothing from other
// servers.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
package media
