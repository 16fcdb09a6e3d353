/** Which recipe a new job has, and the recipe's own settings. */
import type { ReactNode } from "react";
import type { Recipe } from "./contract";
import { Fields, idOf } from "./field";
import { inner, isData, type Data, type Node } from "./schema";

interface Props {
  node: Node;
  recipes: Recipe[];
  value: Data;
  onChange: (value: Data) => void;
}

const OWN = "package.module:Class";

export function RecipeFields({ node, recipes, value, onChange }: Props): ReactNode {
  const name = String(value.name ?? "");
  const known = recipes.find((recipe) => recipe.name === name);
  const config = isData(value.config) ? value.config : {};
  const change = (changed: unknown): void => onChange(changed as Data);
  const names = known ? ["py_modules"] : ["name", "config", "py_modules"];
  return (
    <fieldset className="group" id={idOf("/recipe")} tabIndex={-1}>
      <legend>recipe</legend>
      <span className="help">{known?.summary ?? "A class of your own, importable on the nodes or brought along."}</span>
      <div className="grid">
        <RecipeChoice recipes={recipes} known={known} onChoose={(chosen) => onChange({ name: chosen })} />
        {known && (
          <Fields
            node={inner(known.config_schema, known.config_schema)}
            pointer="/recipe/config"
            value={config}
            onChange={(changed) => onChange({ ...value, config: changed })}
          />
        )}
        <Fields node={node} names={names} pointer="/recipe" value={value} onChange={change} />
      </div>
    </fieldset>
  );
}

interface ChoiceProps {
  recipes: Recipe[];
  known: Recipe | undefined;
  onChoose: (name: string) => void;
}

function RecipeChoice({ recipes, known, onChoose }: ChoiceProps): ReactNode {
  return (
    <div className="field">
      <label htmlFor="recipe-choice">task</label>
      <select id="recipe-choice" value={known?.name ?? OWN} onChange={(event) => onChoose(event.target.value)}>
        {recipes.map((recipe) => (
          <option key={recipe.name}>{recipe.name}</option>
        ))}
        <option value={OWN}>a class of my own</option>
      </select>
    </div>
  );
}
