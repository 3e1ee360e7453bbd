//go:build !race

package proof

// raceFactor is by how much TestHang is smaller, squared, and its bound wider, where the race
// detector would measure itself. make test runs it whole as well, without the detector.
const raceFactor = 1
