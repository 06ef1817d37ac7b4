// The fixture of the contract suite: each test runs in the simulated world and in the real one.
#ifndef POSTKEEPER_TESTS_CONTRACT_CONTRACT_TEST_H_
#define POSTKEEPER_TESTS_CONTRACT_CONTRACT_TEST_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/contract/world.h"

namespace postkeeper::zk {

enum class WorldKind { kSimulator, kServer };

class ContractTest : public testing::TestWithParam<WorldKind> {
 protected:
  // A path below this test's own root: At("a") is "<root>/a".
  std::string At(const std::string& name) const { return root_ + "/" + name; }

  const std::unique_ptr<World> world_ = GetParam() == WorldKind::kServer ? MakeRealWorld() : MakeSimulatedWorld();
  const std::string root_ = world_->MakeRoot();
  Peer peer_{*world_};
};

inline std::string WorldName(const testing::TestParamInfo<WorldKind>& info) {
  return info.param == WorldKind::kServer ? "Server" : "Simulator";
}

#define POSTKEEPER_IN_BOTH_WORLDS(suite) \
  INSTANTIATE_TEST_SUITE_P(Worlds, suite, testing::Values(WorldKind::kSimulator, WorldKind::kServer), WorldName)

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_TESTS_CONTRACT_CONTRACT_TEST_H_
