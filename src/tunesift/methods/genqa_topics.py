"""Which topics does GenQA begin with? Eight areas of two dozen each, our own; the setting `topics` names others."""

from __future__ import annotations

from pathlib import Path

from tunesift.errors import RecipeError, shown
from tunesift.reading import read_texts

AREAS = {
    "nature": """
        Optics; Thermodynamics; Electromagnetism; Acoustics; Astronomy; Particle physics; Organic chemistry;
        Inorganic chemistry; Electrochemistry; Materials science; Geology; Volcanology; Oceanography; Meteorology;
        Hydrology; Botany; Zoology; Mycology; Genetics; Cell biology; Evolutionary biology; Marine ecology;
        Microbiology; Palaeontology
    """,
    "mathematics": """
        Number theory; Linear algebra; Abstract algebra; Real analysis; Complex analysis; Differential equations;
        Differential geometry; Topology; Combinatorics; Graph theory; Probability; Statistics; Numerical methods;
        Optimisation; Mathematical logic; Set theory; Euclidean geometry; Trigonometry; Arithmetic with units;
        Financial mathematics; Game theory; Cryptography; Information theory; Word problems about motion and work
    """,
    "computing": """
        String processing; Sorting and searching; Recursion; Dynamic programming; Graph algorithms; Parsing text;
        Regular expressions; Relational databases; File formats; Command-line tools; Web servers; Web pages;
        Concurrency; Memory management; Networking; Unit testing; Object-oriented design; Functional programming;
        Data frames; Numerical arrays; Image processing; Embedded devices; Compilers; Spreadsheet formulas
    """,
    "medicine": """
        Anatomy; Physiology; Immunology; Pharmacology; Epidemiology; Cardiology; Neurology; Paediatrics; Surgery;
        Anaesthesia; Radiology; Dentistry; Ophthalmology; Dermatology; Oncology; Nutrition; Physiotherapy; Nursing;
        Midwifery; Psychiatry; Sleep medicine; Sports medicine; Toxicology; Veterinary medicine
    """,
    "society": """
        Microeconomics; Macroeconomics; Labour economics; Public finance; Constitutional law; Criminal law;
        Contract law; International law; Political theory; Comparative politics; Diplomacy; Public administration;
        Sociology; Social psychology; Developmental psychology; Anthropology; Archaeology; Demography;
        Urban planning; Human geography; Education; Journalism; Criminology; Accounting
    """,
    "humanities": """
        Ancient history; Medieval history; Early modern history; Economic history; History of science; Ethics;
        Epistemology; Philosophy of language; Aesthetics; Comparative religion; Mythology; Phonetics; Syntax;
        Historical linguistics; Translation studies; Palaeography; Literary criticism; Rhetoric; Musicology;
        Art history; Architectural history; Theatre studies; Film studies; Cultural heritage
    """,
    "engineering": """
        Structural engineering; Geotechnical engineering; Bridge building; Hydraulic engineering; Mechanical design;
        Fluid machinery; Control systems; Robotics; Power grids; Semiconductor devices; Signal processing;
        Telecommunications; Aeronautics; Spaceflight; Shipbuilding; Railways; Automotive engineering;
        Chemical plants; Metallurgy; Mining; Textile engineering; Food technology; Agronomy; Waste treatment
    """,
    "daily life": """
        Cooking; Baking; Gardening; Household repairs; Sewing; Woodworking; Travel by train; Hiking; Cycling;
        Caring for pets; Raising children; Living with neighbours; Renting a flat; Household budgets; Job interviews;
        Letters to authorities; Meetings at work; Planning an event; Learning a language; Playing an instrument;
        Photography; Board games; Volunteering; Second-hand markets
    """,
}
"""Topics by area, between semicolons."""


def topics_of(*areas: str) -> tuple[str, ...]:
    """The topics of some areas, in order."""
    return tuple(" ".join(topic.split()) for area in areas for topic in AREAS[area].split(";"))


def topics_from(given: tuple[str, ...] | Path) -> tuple[str, ...]:
    """The topics of a setting, none named twice; or those of a file, a line or a record each, repeated ones once."""
    found: dict[str, str] = {}
    for said in (" ".join(name.split()) for name in (read_texts(given).said if isinstance(given, Path) else given)):
        if said and said.casefold() in found and not isinstance(given, Path):
            raise RecipeError(f'topics: "{shown(said)}" is named twice; name each topic once, whatever its case.')
        found.setdefault(said.casefold(), said)
    found.pop("", None)
    if not found:
        raise RecipeError("topics: the list is empty; name topics, or leave it out for our own.")
    return tuple(found.values())


def topics_aside(given: tuple[str, ...] | Path | None) -> list[dict[str, object]]:
    """Lines and rows of a file of topics that could not be read, and of which no topic is made."""
    broken = read_texts(given).broken if isinstance(given, Path) else ()
    return [{"row": str(row.place), "why": row.message} for row in broken]
