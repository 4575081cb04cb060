// Prints the outputs of a pair of model files, bit by bit, for comparison with another build of the
// same code (see tests/model/test_arm.py): the target's logits, the drafter's proposals, and a
// sampled generation with drafts. Each line is one item: its name, then numbers, with floats as
// their bits in hex.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "generate/generation.h"
#include "measure/traces.h"

namespace {

constexpr int kDrafts = 4;
constexpr int64_t kGenerated = 24;

void print(const char* name, const std::vector<float>& values) {
  std::printf("%s", name);
  for (const float v : values) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    std::printf(" %08x", bits);
  }
  std::printf("\n");
}

void print(const char* name, const std::vector<int32_t>& values) {
  std::printf("%s", name);
  for (const int32_t v : values) std::printf(" %d", v);
  std::printf("\n");
}

std::vector<int32_t> generate(const std::shared_ptr<gemtp::Engine>& engine,
                              const std::vector<int32_t>& ids) {
  gemtp::GenerationParams params;
  params.sampling.temperature = 1.0f;
  params.sampling.top_p = 0.9f;
  params.sampling.seed = 7;
  params.max_tokens = kGenerated;
  params.draft = kDrafts;
  params.ignore_eos = true;
  gemtp::Generation generation(engine, ids, params);
  std::vector<int32_t> tokens;
  while (!generation.done())
    for (const gemtp::Emitted& e : generation.step()) tokens.push_back(e.id);
  return tokens;
}

void run(const char* target, const char* drafter, bool kv_f16, const std::vector<int32_t>& ids) {
  gemtp::EngineOptions options;
  options.threads = 2;
  options.context = 256;
  options.kv_f16 = kv_f16;
  const auto engine = gemtp::Engine::open(target, drafter, options);
  engine->model().check_ids(ids, 0);
  std::printf("backend %s\n", engine->model().backend().name().c_str());
  std::vector<float> logits(ids.size() * static_cast<size_t>(engine->model().config().vocab));
  gemtp::trace_logits(engine->model(), ids, logits.data());
  print("logits", logits);
  const gemtp::DraftTrace draft = gemtp::trace_drafts(*engine, ids, kDrafts);
  print("draft_tokens", draft.tokens);
  print("draft_logits", draft.logits);
  print("draft_hidden", draft.hidden);
  print("generated", generate(engine, ids));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: %s TARGET.gguf DRAFTER.gguf f16|f32 ID ID ...\n", argv[0]);
    return 2;
  }
  std::vector<int32_t> ids;
  for (int i = 4; i < argc; ++i) ids.push_back(std::atoi(argv[i]));
  try {
    run(argv[1], argv[2], std::string(argv[3]) == "f16", ids);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
