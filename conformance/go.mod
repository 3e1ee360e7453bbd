module github.com/lockstep-go/lockstep/conformance

go 1.25.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/lockstep-go/lockstep/locker v0.0.0
)

replace github.com/lockstep-go/lockstep/locker => ../locker
