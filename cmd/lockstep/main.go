// Command lockstep runs commands under a named lock, shows who holds what, and says whether a
// store is fit to hold locks in.
//
//	root.go      the command and what all its parts have in common
//	store.go     which store: --config, LOCKSTEP_CONFIG
//	exit.go      the exit codes
//	run.go       lockstep run, and holding.go, child.go, terminal.go, progress.go for it
//	list.go      lockstep ls, and table.go for it
//	inspect.go   lockstep inspect
//	break.go     lockstep break
//	watch.go     lockstep watch
//	held.go      what all four say of a hold
//	doctor.go    lockstep doctor, and a file for each kind of store
//	bench.go     lockstep bench
//	completion.go  which keys a shell offers
//	man.go       the man pages
//	text.go      what others wrote, made fit for a terminal
package main

import "os"

func main() { os.Exit(execute(os.Args[1:])) }
