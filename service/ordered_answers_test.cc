#include "service/ordered_answers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace postkeeper {
namespace {

// An answer that is known early waits for those asked before it.
TEST(OrderedAnswersTest, KeepsTheOrderOfTheQuestions) {
  OrderedAnswers<std::string> answers;
  const auto first = answers.Ask();
  const auto second = answers.Ask();
  answers.Give(second, "second");
  EXPECT_FALSE(answers.has_next());
  EXPECT_EQ(answers.Next(), std::nullopt);
  answers.Give(first, "first");
  EXPECT_EQ(answers.Next(), "first");
  EXPECT_EQ(answers.Next(), "second");
  EXPECT_EQ(answers.Next(), std::nullopt);
  EXPECT_TRUE(answers.empty());
}

// Tickets stay right while older answers are taken out.
TEST(OrderedAnswersTest, TicketsSurviveTakingOut) {
  OrderedAnswers<int> answers;
  answers.Give(answers.Ask(), 1);
  const auto second = answers.Ask();
  EXPECT_EQ(answers.Next(), 1);
  const auto third = answers.Ask();
  answers.Give(third, 3);
  answers.Give(second, 2);
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers.Next(), 2);
  EXPECT_EQ(answers.Next(), 3);
}

// Whatever the order in which 1,000 answers become known, they come out in the order asked.
TEST(OrderedAnswersTest, RandomOrders) {
  std::mt19937 random(42);
  OrderedAnswers<std::uint64_t> answers;
  std::vector<std::uint64_t> open;
  std::vector<std::uint64_t> given;
  std::uint64_t asked = 0;
  while (given.size() < 1000) {
    if (asked < 1000 && random() % 2 == 0) {
      open.push_back(answers.Ask());
      ++asked;
    } else if (!open.empty()) {
      std::swap(open[random() % open.size()], open.back());
      answers.Give(open.back(), open.back());
      open.pop_back();
    }
    while (const auto next = answers.Next()) given.push_back(*next);
  }
  EXPECT_TRUE(std::is_sorted(given.begin(), given.end()));
  EXPECT_EQ(given.front(), 0u);
  EXPECT_EQ(given.back(), 999u);
}

}  // namespace
}  // namespace postkeeper
