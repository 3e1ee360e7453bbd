package full_test

// Config of a test is not the one that is described.
type Config struct{}
