#include "engine/engine.h"

#include <utility>

namespace gemtp {

std::shared_ptr<Engine> Engine::open(const std::string& target_path,
                                     const std::string& drafter_path,
                                     const EngineOptions& options) {
  options.check();
  ModelFiles files = ModelFiles::open(target_path, drafter_path);
  // A child cannot end what threads of its parent have begun: it leaves such an engine as it is.
  return {new Engine(std::move(files), options), [](Engine* engine) {
            if (!engine->model_.watch().lost()) delete engine;
          }};
}

}  // namespace gemtp
