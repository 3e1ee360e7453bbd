// Package packaging proves what users get who run go get on one of the published
// modules: that it resolves outside this workspace, that it brings only what it has
// to, and that its exported API is the one on record.
//
// A workspace hides all three. Here every module is built beside its siblings, by
// go.work and by replace lines, and go ignores both in a dependency. So the modules
// are zipped as a release would zip them ([WriteProxy]), into a folder that the go
// command takes for a module proxy, and an empty module ([App]) gets them from there.
//
// What the proof compares with is on record in testdata:
//
//	graph/NAME.txt   the go line, and the modules that go get of NAME brings
//	api/NAME.txt     the exported API of NAME, one line for each thing that users can name
//	use/NAME/        a small program of a user of NAME
//
// NAME is the folder of the module with dashes for slashes. Write the records with
//
//	go test ./internal/packaging -update
//
// which refuses to remove a line from an API, because that breaks users. If that is
// what you want, add -incompatible, and say so in the CHANGELOG. What is on record
// changes in the same commit as the code, so that a reviewer sees what users will.
//
// The tests use no network as long as the machine's module cache has the third
// parties that the modules require. Otherwise they ask the configured module proxy.
package packaging
