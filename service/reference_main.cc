// Prints the pages of docs/ that are made from the code: reference_pages metrics | configuration. For ./dev check and
// ./dev fix.
#include <cstdio>
#include <string>
#include <string_view>

#include "metrics/reference.h"
#include "service/knobs.h"

int main(int argc, char** argv) {
  const std::string_view page = argc == 2 ? argv[1] : "";
  std::string text;
  if (page == "metrics") text = postkeeper::MetricsMarkdown();
  if (page == "configuration") text = postkeeper::HelpMarkdown();
  if (text.empty()) {
    std::fputs("usage: reference_pages metrics|configuration\n", stderr);
    return 2;
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}
