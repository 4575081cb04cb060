#include "engine/engine.h"

#include <utility>

namespace gemtp {

std::shared_ptr<Engine> Engine::open(const std::string& target_path,
                                     const std::string& drafter_path,
                                     const EngineOptions& options) {
  options.check();
  ModelFiles files = ModelFiles::open(target_path, drafter_path);
  // A forked child cannot finish the work of its parent's threads, so it leaks an engine that was
  // in use.
  return {new Engine(std::move(files), options), [](Engine* engine) {
            if (!engine->model_.watch().lost()) delete engine;
          }};
}

}  // namespace gemtp
