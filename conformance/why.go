package conformance

// reasons are the Why of each case, in one place so that they can be read as a list.
var reasons = map[string]string{
	"MX-001": "It is what a lock is for: two holders do what must be done by one.",
	"MX-002": "Otherwise a long hold on one key stops work that has nothing to do with it.",
	"MX-003": "A process is many goroutines; a lock that lets its own process in again excludes none of them.",
	"MX-004": "Callers that choose different kinds for one key still mean the same lock.",

	"TTL-001": "A holder that died must not stop everybody for ever, or for longer than it asked for.",
	"TTL-002": "A holder that believes for longer than the store works beside the next one.",
	"TTL-003": "A ttl that becomes 0 on the way is a lock for ever, or none at all.",
	"TTL-004": "A client that restarts must not free what it was trusted to hold; or must say that it does.",
	"TTL-005": "The core sleeps for that long, and operators decide by it whether to wait.",

	"EXT-001": "A deadline that is not now + d surprises: the holder stops too late, or the key stays taken.",
	"EXT-002": "Somebody else may have held the key meanwhile, and changed what the lock protects.",
	"EXT-003": "If the request was lost, the store has the old end; if the reply was, the new one. Only the earlier is safe.",
	"EXT-004": "A session that gets a ttl by mistake ends by itself, and nobody expects that.",

	"REL-001": "Whoever waits loses all the time for which a key that nobody holds stays taken.",
	"REL-002": "A late Unlock that takes away the next holder's lock is the classic bug of lock libraries.",
	"REL-003": "A deferred Unlock beside an explicit one is common and must be harmless, whoever has the key by then.",
	"REL-004": "`defer lease.Unlock(ctx)` runs most often exactly when ctx has ended.",
	"REL-005": "Otherwise a caller can only guess whether the key is free, and a lost reply costs a whole ttl.",
	"REL-006": "Otherwise one lost reply takes a key from everybody for as long as the longest ttl that was ever asked for.",

	"TOK-001": "The protected store tells an old holder from the new one by nothing else.",
	"TOK-002": "A holder whose token changes is refused by the store that it writes to, or refuses itself.",
	"TOK-003": "Above 2^53 a token is rounded in Lua, JSON and doubles, and two holders get the same.",
	"TOK-004": "A token that is read after the grant can be the next holder's, who is then not told from this one.",
	"TOK-005": "Whoever relies on fencing must know what makes tokens begin again.",

	"LOSS-001": "A holder learns of its end only from here when the network is silent or the machine was busy.",
	"LOSS-002": "What to do next differs: ask for a longer ttl, look for an administrator, or for a broken network.",
	"LOSS-003": "Work under a lock that is gone is wasted at best; the sooner it stops, the less of it.",
	"LOSS-005": "Two who believe that they hold one lock, in one process, and the one place that knows better says nothing.",
	"LOSS-004": "Code under a lock mostly listens to its ctx and to nothing else.",

	"WAIT-001": "Polling is slow for the waiter or costly for the store, and mostly both.",
	"WAIT-002": "A patience that is not what was asked for is a hang or a false failure.",
	"WAIT-003": "All others would sleep beside a key that is free.",
	"WAIT-004": "Without an order somebody waits for ever while others come and go.",
	"WAIT-005": "Retrying there hides a loss behind a wait, and blocks a deferred Unlock.",
	"WAIT-006": "A restart of the store must not need a restart of all its clients.",
	"WAIT-007": "A process that is never done keeps all the others out, however fair it is to its own.",

	"CTX-001": "Whoever has given up already must not come to hold a lock.",
	"CTX-002": "A time limit for getting the lock must not become one for the work.",
	"CTX-003": "A caller must tell “busy” from “down”, and its own deadline from both.",
	"CTX-004": "Nobody would ever unlock a hold whose caller has gone.",

	"KEY-001": "A key that is cut or empty is somebody else's key.",
	"KEY-002": "Keys are made from users' data; two that collide lock each other out, or worse, look like one lock.",
	"KEY-003": "A user's key that is a backend's own name could free or fake another's lock.",

	"CLO-001": "A hold that is granted during the shutdown is one that nobody releases.",
	"CLO-002": "A shutdown would wait for locks that it does not want any more.",
	"CLO-003": "Otherwise every deployment costs the others a ttl for each lock.",
	"CLO-005": "Services run for months; a few bytes for each key ever seen are a restart at night.",
	"CLO-004": "Tests and servers open and close many; each leak adds up.",

	"ERR-001": "Callers decide by the kind of an error, and people by its words.",
	"ERR-002": "Taking an outage for contention waits for nobody; the other way round raises an alarm for nothing.",
	"ERR-004": "A store that is full is asked for more, and a lock that was never taken is released for an hour, if a refusal counts as silence.",
	"ERR-003": "Configuration is mended by people, at night, from this one line.",

	"SES-001": "A session is for work whose length nobody knows; it must not end because others end, or because there are many.",
	"SES-002": "A lock that is renewed for nobody is taken until a process ends, which may be weeks.",
	"INS-001": "Operators break locks by what they see; a wrong owner or token breaks the wrong one.",
	"INS-002": "Health checks decide by it whether a process gets work.",

	"CONC-001": "Single cases show single orders of events; bugs live in the others.",
	"CONC-002": "A data race makes every other promise void.",

	"FLT-001": "After a lost reply the key is taken, by the very caller that is about to ask again.",
	"FLT-002": "Latency comes when a store is busy; timeouts that fire then make it busier, and lock holders out.",
	"FLT-003": "The store frees the key by its own clock; whoever is cut off can only go by its own.",
	"FLT-004": "After a restart without data the store grants what others believe they hold.",
	"FLT-005": "A call that does not come back takes its goroutine, and soon its server, with it.",
	"FLT-006": "Clocks of machines differ, now and then by a lot.",
	"FLT-007": "Administrators do it, and the holder is the last to be asked.",
	"FLT-008": "Connections break all the time; work need not.",
	"FLT-009": "A process that was killed says nothing, and one that was stopped does not know that it was.",

	"KEEP-001": "Work that takes longer than its lease loses the lock in the middle, and few remember to extend.",
	"KEEP-002": "A wedged worker that is renewed for ever blocks all; one whose lease is cut short unawares is overtaken.",
	"KEEP-003": "A process that lives is not one that works.",
	"KEEP-004": "What must not be done again for an hour is done again when the process ends after a second.",

	"ELECT-001": "Two leaders at a time is what an election exists to prevent, and what most of them have now and then.",
	"ELECT-002": "A leader that learns late acts late; a fleet without a leader waits for nothing.",
	"ELECT-003": "A leader that does not stop holds everybody up, or works beside the next one, and nobody knows.",

	"ONCE-001": "Nobody wants the nightly mail twice, or not at all.",
	"ONCE-002": "Clocks are seconds apart and jobs milliseconds long: who comes late finds the lock free again.",
	"ONCE-003": "Whether a failure counts depends on the job; a slot that nobody may try again is lost.",
	"ONCE-004": "When a value expires, all of the fleet computes it at once; when its source fails, again and again.",

	"MULTI-001": "Half of the keys protects nothing, and holds up whoever needs that half.",
	"MULTI-002": "Two callers with the same keys in another order wait for each other until somebody restarts them.",
	"MULTI-003": "The work needs all of its keys; with one of them gone it must stop, and needs the others while it stops.",
	"ADM-001":   "Whom to call, and what for, is the first question at night; the wrong name wakes the wrong person.",
	"ADM-002":   "A note that is the last holder's sends people after work that is done.",
	"ADM-003":   "What a list leaves out is looked for elsewhere; what it makes up is broken for nothing.",
	"ADM-004":   "A store with millions of locks must not be read to its end for the first of them, nor stand still meanwhile.",
	"ADM-005":   "Between the look and the break the lock may have gone to somebody who works.",
	"ADM-006":   "A holder that does not hear of it works on beside the next one.",
	"ADM-007":   "Teams share a store; nobody should see, let alone break, what is another's by a slip.",

	"MULTI-004": "Keys that end one by one leave a time in which some are held and others are not.",
	"FAM-001":   "A key made of two parts by hand collides sooner or later; a metric per key kills the metrics.",
}
