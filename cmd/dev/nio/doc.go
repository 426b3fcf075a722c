// Package nio lets two people with clients of matrix-nio talk with each other in an
// encrypted room of the real server: a library that shares nothing with those of the
// other tests. The talk is in talk.py.
package nio
