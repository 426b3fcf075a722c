package database_test

import "runtime"

func yield() { runtime.Gosched() }
