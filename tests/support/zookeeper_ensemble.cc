#include "tests/support/zookeeper_ensemble.h"

#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

namespace postkeeper {
namespace {

constexpr auto kElectionTimeout = std::chrono::seconds(120);
constexpr auto kPollInterval = std::chrono::milliseconds(20);
constexpr int kPatienceTicks = 100;

}  // namespace

ZookeeperEnsemble::ZookeeperEnsemble(Options options) : options_(options), folder_(MakeTemporaryFolder()) {
  const int size = options_.voters + options_.observers;
  const std::vector<int> ports = FreePorts(3 * size);
  std::ostringstream members;
  for (int index = 0; index < size; ++index) {
    const std::string folder = folder_ + "/" + std::to_string(index);
    std::filesystem::create_directories(folder + "/data");
    std::ofstream(folder + "/data/myid") << index + 1 << "\n";
    const int* own = &ports[static_cast<std::size_t>(3 * index)];
    members << "server." << index + 1 << "=127.0.0.1:" << own[0] << ":" << own[1]
            << (index < options_.voters ? ":participant" : ":observer") << ";127.0.0.1:" << own[2] << "\n";
    servers_.push_back(std::make_unique<ZookeeperProcess>(folder, own[2]));
  }
  members_ = members.str();
}

ZookeeperEnsemble::~ZookeeperEnsemble() {
  servers_.clear();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string ZookeeperEnsemble::Configuration(int index) const {
  std::ostringstream text;
  text << "tickTime=" << options_.tick.count() << "\n"
       << "initLimit=" << kPatienceTicks << "\n"
       << "syncLimit=" << kPatienceTicks << "\n"
       << "dataDir=" << folder_ << "/" << index << "/data\n"
       << "maxSessionTimeout=" << options_.tick.count() * 200 << "\n"
       << "maxClientCnxns=0\n"
       << "admin.enableServer=false\n"
       << "4lw.commands.whitelist=srvr\n"
       << (index < options_.voters ? "" : "peerType=observer\n") << members_;
  return text.str();
}

void ZookeeperEnsemble::Launch() {
  for (int index = 0; index < size(); ++index) {
    server(index).Launch("org.apache.zookeeper.server.quorum.QuorumPeerMain", Configuration(index),
                         {"-Dzookeeper.snapCount=" + std::to_string(options_.snapshot_every)});
  }
}

void ZookeeperEnsemble::Start() {
  Launch();
  for (int index = 0; index < size(); ++index) server(index).AwaitService();
}

int ZookeeperEnsemble::AwaitLeader() {
  const auto give_up_at = std::chrono::steady_clock::now() + kElectionTimeout;
  while (true) {
    std::vector<int> leaders = InMode("leader");
    if (!leaders.empty()) return leaders.front();
    if (std::chrono::steady_clock::now() > give_up_at) {
      std::cerr << "ZookeeperEnsemble: nobody was elected" << std::endl;
      std::abort();
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

std::vector<int> ZookeeperEnsemble::InMode(const std::string& mode) {
  std::vector<int> found;
  for (int index = 0; index < size(); ++index) {
    if (server(index).is_running() && server(index).Mode() == mode) found.push_back(index);
  }
  return found;
}

std::string ZookeeperEnsemble::hosts() const {
  std::string all;
  for (const auto& server : servers_) all += (all.empty() ? "" : ",") + server->hosts();
  return all;
}

}  // namespace postkeeper
