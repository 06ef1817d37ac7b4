// What the embedded ZooKeeper is started with: its command line and its configuration files.
#ifndef POSTKEEPER_SERVICE_EMBEDDED_ZOOKEEPER_FILES_H_
#define POSTKEEPER_SERVICE_EMBEDDED_ZOOKEEPER_FILES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/embedded_zookeeper.h"

namespace postkeeper {

// The path of the Java to use. FAILED_PRECONDITION, with the line to type, if it or ZooKeeper's jars are missing.
absl::StatusOr<std::string> FindJava(const EmbeddedZooKeeper::Options& options);

// Writes zoo.cfg and logging.properties into the directory.
absl::Status WriteZooKeeperFiles(const EmbeddedZooKeeper::Options& options, int port);

// To be run in the directory: all paths are relative to it, so that none has to be quoted in Java's formats.
std::vector<std::string> ZooKeeperCommand(const EmbeddedZooKeeper::Options& options, const std::string& java);
std::vector<std::string> ZooKeeperEnvironment();

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_EMBEDDED_ZOOKEEPER_FILES_H_
