"""The methods, one page each.

paper                             page                      recipe
Superfiltering 2402.00530         select.py                 superfiltering.yaml
Superfiltering.D, the same        select.py                 superfiltering-d.yaml
any scorer, any selector          select.py                 select.yaml, combined.yaml, perplexity.yaml
Cherry LLM 2308.12032             cherry.py                 cherry.yaml
SelectIT 2402.16705               selectit.py               selectit.yaml, selectit-full.yaml
CLEAR 2403.12776                  clear.py                  clear.yaml, clear-correct.yaml
Reflection-Tuning 2310.11716      reflection.py             reflection.yaml
Selective Reflection 2402.10110   selective_reflection.py   selective-reflection.yaml
the same, as published            selective_reflection.py   refine-alpaca.yaml, refine-wizardlm.yaml
GenQA 2406.10323                  genqa.py                  genqa.yaml
DEBATunE 2402.10614               debatune.py               debatune.yaml
its evaluation                    controllability.py        controllability.yaml
MCTune 2406.16229                 mctune.py                mctune.yaml
its evaluation                    mctune_evaluate.py        mctune-evaluate.yaml
Star-Agents 2411.14497            star_agents.py            star-agents.yaml
ODIN 2402.07319                   odin.py                   odin.yaml
OPTune 2406.07657                 optune.py                 optune.yaml
SIMA 2405.15973                   sima.py                   sima.yaml
scores, without a paper           score.py                  score.yaml
tuning on the records             tune.py                   tune.yaml
"""
