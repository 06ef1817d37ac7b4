#include "tests/support/zookeeper_server.h"

#include <signal.h>

#include <filesystem>
#include <sstream>

namespace postkeeper {

ZookeeperServer::ZookeeperServer() : ZookeeperServer(Options()) {}

ZookeeperServer::ZookeeperServer(Options options)
    : options_(options), folder_(MakeTemporaryFolder()), process_(folder_, FreePorts(1).front()) {}

ZookeeperServer::~ZookeeperServer() {
  Kill();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void ZookeeperServer::Start() {
  if (process_.is_running()) return;
  std::ostringstream configuration;
  configuration << "tickTime=" << options_.tick.count() << "\n"
                << "dataDir=" << folder_ << "/data\n"
                << "clientPort=" << port() << "\n"
                << "clientPortAddress=127.0.0.1\n"
                << "maxSessionTimeout=" << options_.tick.count() * 200 << "\n"
                << "maxClientCnxns=0\n"
                << "admin.enableServer=false\n"
                << "4lw.commands.whitelist=srvr\n";
  std::vector<std::string> flags = options_.java_flags;
  flags.push_back("-Djute.maxbuffer=" + std::to_string(options_.request_bytes_max));
  process_.Launch("org.apache.zookeeper.server.ZooKeeperServerMain", configuration.str(), std::move(flags));
  process_.AwaitService();
}

void ZookeeperServer::Stop() { process_.End(SIGTERM); }

void ZookeeperServer::Kill() { process_.End(SIGKILL); }

}  // namespace postkeeper
