package redis

import (
	_ "embed"

	"github.com/redis/rueidis"
)

// The scripts are constants of the program: no byte of a user's is ever part of one.
// Keys and owners travel as KEYS and ARGV.
var (
	//go:embed lua/acquire.lua
	acquireSource string
	//go:embed lua/extend.lua
	extendSource string
	//go:embed lua/check.lua
	checkSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/takeback.lua
	takeBackSource string
	//go:embed lua/inspect.lua
	inspectSource string
	//go:embed lua/line.lua
	lineSource string
	//go:embed lua/pass.lua
	passSource string

	acquireScript  = rueidis.NewLuaScript(acquireSource)
	extendScript   = rueidis.NewLuaScript(extendSource)
	checkScript    = rueidis.NewLuaScript(checkSource)
	releaseScript  = rueidis.NewLuaScript(releaseSource)
	takeBackScript = rueidis.NewLuaScript(takeBackSource)
	inspectScript  = rueidis.NewLuaScript(inspectSource)
	lineScript     = rueidis.NewLuaScript(lineSource + acquireSource)
	passScript     = rueidis.NewLuaScript(passSource)
)
