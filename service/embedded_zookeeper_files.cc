#include "service/embedded_zookeeper_files.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_split.h"
#include "service/data_directory.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// ZooKeeper's jar names all others that it needs in its manifest, but for one that logs.
constexpr std::string_view kJars[] = {"zookeeper.jar", "slf4j-jdk14.jar"};

constexpr std::int64_t kLogStepBytesMax = 16 << 20;

std::string Getenv(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::Status Missing(std::string_view what) {
  return absl::FailedPreconditionError(
      Cat("the embedded ZooKeeper needs ", what,
          ". Install it: apt-get install default-jre-headless libzookeeper-java. Or use an ensemble: --zookeeper "
          "HOST:PORT"));
}

}  // namespace

absl::StatusOr<std::string> FindJava(const EmbeddedZooKeeper::Options& options) {
  std::vector<std::string> candidates;
  if (!options.java.empty()) {
    candidates = {options.java};
  } else {
    if (const std::string home = Getenv("JAVA_HOME"); !home.empty()) candidates.push_back(home + "/bin/java");
    for (const std::string& folder : std::vector<std::string>(absl::StrSplit(Getenv("PATH"), ':', absl::SkipEmpty()))) {
      candidates.push_back(folder + "/java");
    }
    candidates.push_back("/usr/bin/java");
  }
  const auto java = std::find_if(candidates.begin(), candidates.end(),
                                 [](const std::string& path) { return access(path.c_str(), X_OK) == 0; });
  if (java == candidates.end()) {
    return Missing(Cat("Java", options.java.empty() ? "" : Cat(" (", options.java, ")"), ", which is not installed"));
  }
  for (const std::string_view jar : kJars) {
    const std::string path = Cat(options.jars, "/", jar);
    if (access(path.c_str(), R_OK) != 0) return Missing(Cat(path, ", which is not installed"));
  }
  return *java;
}

absl::Status WriteZooKeeperFiles(const EmbeddedZooKeeper::Options& options, int port) {
  const std::string zoo_cfg =
      Cat("# Written by postkeeperd at each start.\n"
          "dataDir=./data\n"
          "clientPort=",
          port,
          "\n"
          "clientPortAddress=127.0.0.1\n"
          "# One server and its tools.\n"
          "maxClientCnxns=100\n"
          "# Sessions of 2 s to 60 s; an expiry is noticed within a tick.\n"
          "tickTime=500\n"
          "minSessionTimeout=2000\n"
          "maxSessionTimeout=60000\n"
          "# Batches of half a megabyte: what bounds the logs is their size, not the number of transactions.\n"
          "snapSizeLimitInKb=",
          options.snapshot_log_bytes >> 10,
          "\n"
          "snapCount=300000\n"
          "# Logs grow by so much at a time, which counts as written: it must be small beside snapSizeLimitInKb.\n"
          "preAllocSize=",
          std::min(kLogStepBytesMax, options.snapshot_log_bytes / 16) >> 10,
          "\n"
          "# postkeeperd purges, more often, and only what newer snapshots that are safely on the disk replace.\n"
          "autopurge.purgeInterval=0\n"
          "forceSync=yes\n"
          "# Its cache would keep 400 batches in memory that postkeeperd caches itself.\n"
          "maxResponseCacheSize=0\n"
          "maxGetChildrenResponseCacheSize=0\n"
          "admin.enableServer=false\n"
          "4lw.commands.whitelist=conf,srvr\n");
  const std::string logging =
      "# Written by postkeeperd at each start. Two files of at most 1 MiB.\n"
      "handlers=java.util.logging.FileHandler\n"
      ".level=INFO\n"
      "java.util.logging.FileHandler.pattern=zookeeper.log\n"
      "java.util.logging.FileHandler.limit=1048576\n"
      "java.util.logging.FileHandler.count=2\n"
      "java.util.logging.FileHandler.append=true\n"
      "java.util.logging.FileHandler.formatter=java.util.logging.SimpleFormatter\n"
      "java.util.logging.SimpleFormatter.format=%1$tFT%1$tT.%1$tL %4$s %3$s %5$s%6$s%n\n";
  if (absl::Status status = ReplaceFile(options.directory + "/zoo.cfg", zoo_cfg); !status.ok()) return status;
  return ReplaceFile(options.directory + "/logging.properties", logging);
}

std::vector<std::string> ZooKeeperCommand(const EmbeddedZooKeeper::Options& options, const std::string& java) {
  std::string class_path;
  for (const std::string_view jar : kJars) class_path += Cat(class_path.empty() ? "" : ":", options.jars, "/", jar);
  return {java, Cat("-Xmx", options.heap_bytes >> 10, "k"),
          // Taken as needed, not at once.
          "-Xms32m",
          // With smaller regions each batch would be an object of more than half a region, which this collector puts
          // into a place of its own and frees late.
          "-XX:+UseG1GC", "-XX:G1HeapRegionSize=4m",
          // Half dead is worse than dead: it is started again.
          "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", "-XX:ErrorFile=./java_error.log",
          "-Djava.awt.headless=true", "-Djava.util.logging.config.file=./logging.properties", "-cp", class_path,
          "org.apache.zookeeper.server.quorum.QuorumPeerMain", "./zoo.cfg"};
}

std::vector<std::string> ZooKeeperEnvironment() {
  // A clean one: JAVA_TOOL_OPTIONS, CLASSPATH and the like are not meant for this program. UTF-8, so that Java can name
  // directories of any name.
  std::vector<std::string> environment = {"LC_ALL=C.UTF-8"};
  for (const char* name : {"PATH", "HOME", "TZ", "LD_LIBRARY_PATH"}) {
    if (const std::string value = Getenv(name); !value.empty()) environment.push_back(Cat(name, "=", value));
  }
  return environment;
}

}  // namespace postkeeper
