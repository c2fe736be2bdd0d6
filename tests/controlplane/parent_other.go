//go:build !linux

package main

import "syscall"

// dieWithParent does nothing here: only Linux can tie a child's life to its parent's. Components
// still end with the supervisor in every case but its own SIGKILL.
func dieWithParent(*syscall.SysProcAttr) {}
