// What LeakSanitizer must not report.

// A handle of the ZooKeeper C client (3.8) that is closed while requests are on their way never frees their replies:
// its completion thread may end before it has taken them all, and nobody takes the rest.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libzookeeper_mt"; }
