#include "zkstore/environment.h"

#include <cstring>

namespace postkeeper {

std::uint64_t Environment::Random64() {
  std::uint8_t bytes[sizeof(std::uint64_t)];
  FillRandom(bytes);
  std::uint64_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

}  // namespace postkeeper
