// Does with the embedded ZooKeeper what postkeeperd does, and nothing else: holds the data directory, runs ZooKeeper
// below it, and says where. For tests that kill it and for the disk soak.
//
//   embedded_zookeeper_host DATA_DIR [--heap-mib N] [--snapshot-log-mib N] [--purge-ms N]
//
// Prints "PORT PID" when ZooKeeper answers, and ends when its standard input does. Exit code 1 with one line on stderr
// if it cannot start, or if ZooKeeper is gone for good.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "service/data_directory.h"
#include "service/embedded_zookeeper.h"
#include "service/logging.h"

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc % 2 != 0) return Fail(absl::InvalidArgumentError("see the head of the source for the usage"));
  postkeeper::ConfigureLogging(postkeeper::LogLevel::kDebug, postkeeper::LogFormat::kText);
  auto directory = postkeeper::DataDirectory::Open(argv[1]);
  if (!directory.ok()) return Fail(directory.status());

  postkeeper::EmbeddedZooKeeper::Options options;
  options.directory = directory->zookeeper_path();
  options.on_gone = [](const absl::Status& why) { _exit(Fail(why)); };
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const long value = std::atol(argv[i + 1]);
    if (name == "--heap-mib") options.heap_bytes = value << 20;
    if (name == "--snapshot-log-mib") options.snapshot_log_bytes = value << 20;
    if (name == "--purge-ms") options.purge_interval = std::chrono::milliseconds(value);
  }
  auto zookeeper = postkeeper::EmbeddedZooKeeper::Start(options);
  if (!zookeeper.ok()) return Fail(zookeeper.status());
  std::printf("%d %d\n", (*zookeeper)->port(), static_cast<int>((*zookeeper)->pid()));
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}
